//! A table by number that grows by small pieces, for what each of very many connections has there.
//! A vector would double: the half of it may be unused, and each time the old one is left behind.

/// So many entries are one piece.
const PIECE_ENTRIES: usize = 256;

/// Entries by number; all that were never set are the default.
pub(super) struct Table<T> {
    pieces: Vec<Box<[T; PIECE_ENTRIES]>>,
}

impl<T: Default> Table<T> {
    pub(super) fn new() -> Table<T> {
        Table { pieces: Vec::new() }
    }

    /// The entry, if the table has grown so far.
    pub(super) fn get(&self, index: u32) -> Option<&T> {
        let piece = self.pieces.get(index as usize / PIECE_ENTRIES)?;
        Some(&piece[index as usize % PIECE_ENTRIES])
    }

    /// The entry, if the table has grown so far.
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let piece = self.pieces.get_mut(index as usize / PIECE_ENTRIES)?;
        Some(&mut piece[index as usize % PIECE_ENTRIES])
    }

    /// Sets the entry; the table grows so far.
    pub(super) fn set(&mut self, index: u32, entry: T) {
        let (piece, at) = (
            index as usize / PIECE_ENTRIES,
            index as usize % PIECE_ENTRIES,
        );
        while self.pieces.len() <= piece {
            let fresh = std::array::from_fn(|_| T::default());
            self.pieces.push(Box::new(fresh));
        }
        self.pieces[piece][at] = entry;
    }

    /// All entries that there is room for, with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(self.pieces.iter().flat_map(|piece| piece.iter()))
    }

    /// Forgets all entries.
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_by_their_numbers() {
        let mut table = Table::new();
        assert_eq!(table.get(0), None);
        for index in [0, 255, 256, 1_000] {
            table.set(index, index + 1);
        }
        let set: Vec<_> = table.iter().filter(|(_, entry)| **entry > 0).collect();
        assert_eq!(set, [(0, &1), (255, &256), (256, &257), (1_000, &1_001)]);
        *table.get_mut(255).unwrap() = 7;
        assert_eq!((table.get(255), table.get(254)), (Some(&7), Some(&0)));
        assert_eq!(table.get(1_023), Some(&0));
        assert_eq!(table.get(1_024), None);
        table.clear();
        assert_eq!(table.get_mut(0), None);
    }
}
