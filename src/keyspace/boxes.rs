//! The values of a segment that are too large or too structured to lie in its packed entries, and
//! keys too long for them. An entry names its box by number; a number stays until it is taken.

use super::Value;

/// End of the list of free numbers.
const NONE: u32 = u32::MAX;

/// What lies outside of an entry.
pub(super) struct Boxed {
    /// The key, when it is too long for the entry.
    pub(super) key: Option<Box<[u8]>>,
    /// The value; of a tombstone, any.
    pub(super) value: Value,
}

enum Item {
    Used(Boxed),
    Free(u32),
}

/// Boxed values by number.
pub(super) struct Boxes {
    items: Vec<Item>,
    free: u32,
    used: u32,
    /// Heap bytes behind the values and keys.
    value_bytes: usize,
}

impl Default for Boxes {
    fn default() -> Boxes {
        Boxes {
            items: Vec::new(),
            free: NONE,
            used: 0,
            value_bytes: 0,
        }
    }
}

impl Boxed {
    /// Heap bytes behind it.
    pub(super) fn heap_bytes(&self) -> usize {
        self.key.as_ref().map_or(0, |key| key.len()) + self.value.heap_bytes()
    }
}

impl Boxes {
    pub(super) fn at(&self, number: u32) -> &Boxed {
        match &self.items[number as usize] {
            Item::Used(boxed) => boxed,
            Item::Free(_) => unreachable!("an entry names a free box"),
        }
    }

    /// The box, and the counter of heap bytes that whoever changes its value must keep right.
    pub(super) fn at_mut(&mut self, number: u32) -> (&mut Boxed, &mut usize) {
        match &mut self.items[number as usize] {
            Item::Used(boxed) => (boxed, &mut self.value_bytes),
            Item::Free(_) => unreachable!("an entry names a free box"),
        }
    }

    pub(super) fn insert(&mut self, boxed: Boxed) -> u32 {
        self.value_bytes += boxed.heap_bytes();
        self.used += 1;
        if self.free != NONE {
            let number = self.free;
            let item = &mut self.items[number as usize];
            if let Item::Free(next) = std::mem::replace(item, Item::Used(boxed)) {
                self.free = next;
            }
            return number;
        }
        if self.items.len() == self.items.capacity() {
            self.items.reserve_exact(self.items.len() / 8 + 1);
        }
        self.items.push(Item::Used(boxed));
        self.items.len() as u32 - 1
    }

    pub(super) fn take(&mut self, number: u32) -> Boxed {
        let item = std::mem::replace(&mut self.items[number as usize], Item::Free(self.free));
        let Item::Used(boxed) = item else {
            unreachable!("an entry names a free box")
        };
        self.free = number;
        self.used -= 1;
        self.value_bytes -= boxed.heap_bytes();
        if self.used == 0 {
            *self = Boxes::default();
        }
        boxed
    }

    /// Bytes of memory.
    pub(super) fn heap_bytes(&self) -> usize {
        self.items.capacity() * size_of::<Item>() + self.value_bytes
    }
}
