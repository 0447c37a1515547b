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
        let beyond = ids.iter().map(|id| id.saturating_add(1)).max();
        let next = beyond.unwrap_or(0).max(next);
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

    /// Whether so many flushes are possible: beyond the last id lie those of shadows.
    pub fn has_ids_for(&self, flushes: usize) -> bool {
        (SHADOW - self.next.min(SHADOW)) as usize >= flushes
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
        assert!(self.has_ids_for(1), "the ids of databases are used up");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_database_gets_the_id_of_a_shadow() {
        let mut databases = Databases::restored(vec![0, 1], SHADOW - 2, 2);
        assert!(databases.has_ids_for(2) && !databases.has_ids_for(3));
        databases.flush(0);
        databases.flush(1);
        assert!(databases.ids().iter().all(|id| !is_shadow(*id)));
        assert!(!databases.has_ids_for(1));
    }
}
