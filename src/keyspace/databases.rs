//! The map from database numbers (`SELECT`) to database ids.
//!
//! FLUSHDB takes a new id, SWAPDB exchanges two: constant time. Ids are never used again; the rows
//! of an id that no number leads to are dead. Every shard has a copy, and all change together.
//!
//! Each database has a *shadow*, whose id is its own with the top bit set: there lies what is kept
//! beside its keys. No number leads to a shadow; it lives and dies with its database.

/// Set in the id of a shadow.
const SHADOW: u32 = 1 << 31;

/// The id of a database's shadow.
pub fn shadow_of(id: u32) -> u32 {
    id | SHADOW
}

/// Whether an id is that of a shadow.
pub fn is_shadow(id: u32) -> bool {
    id & SHADOW != 0
}

/// The id of the database that an id, of a database or a shadow, belongs to.
pub fn visible(id: u32) -> u32 {
    id & !SHADOW
}

/// Numbers to ids, and the next unused id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Databases {
    ids: Vec<u32>,
    next: u32,
}

impl Databases {
    /// `count` fresh databases.
    pub fn new(count: usize) -> Databases {
        Databases {
            ids: (0..count as u32).collect(),
            next: count as u32,
        }
    }

    /// As they were logged; `count` numbers at least.
    pub fn restored(ids: Vec<u32>, next: u32, count: usize) -> Databases {
        let next = ids.iter().map(|id| id + 1).max().unwrap_or(0).max(next);
        let mut databases = Databases { ids, next };
        while databases.ids.len() < count {
            databases.ids.push(databases.next);
            databases.next += 1;
        }
        databases
    }

    /// The id behind a number.
    pub fn id(&self, number: usize) -> u32 {
        self.ids[number]
    }

    /// All ids, by number.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Whether a number leads to an id, of a database or a shadow.
    pub fn is_live(&self, id: u32) -> bool {
        self.ids.contains(&visible(id))
    }

    /// Whether an id was given to a number once, and none leads to it any more.
    pub fn is_dead(&self, id: u32) -> bool {
        // An id beyond the map belongs to a later map of the log.
        visible(id) < self.next && !self.is_live(id)
    }

    /// The next unused id.
    pub fn next(&self) -> u32 {
        self.next
    }

    /// Number of databases.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Gives a number a new, empty id; the old one is dead.
    pub fn flush(&mut self, number: usize) -> u32 {
        let dead = self.ids[number];
        self.ids[number] = self.next;
        self.next += 1;
        dead
    }

    /// Exchanges two numbers' databases.
    pub fn swap(&mut self, first: usize, second: usize) {
        self.ids.swap(first, second);
    }
}
