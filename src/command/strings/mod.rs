//! Strings: set, get, compare, change in place, and their bits.
//!
//! Always true: a state cell is a string to every command here, and what writes its value makes it
//! an ordinary string; a command that changes a part of a string logs that part.

use crate::command::Row;

mod bitfield;
mod bitop;
mod bits;
mod compare;
mod condition;
mod get;
mod lcs;
mod many;
mod range;
mod set;

#[cfg(test)]
mod model;

/// The family's commands.
pub const COMMANDS: &[Row] = &[
    Row::keys::<get::Get>(),
    Row::keys::<set::Set>(),
    Row::keys::<set::SetNx>(),
    Row::keys::<set::SetEx>(),
    Row::keys::<set::PSetEx>(),
    Row::keys::<get::GetSet>(),
    Row::keys::<get::GetDel>(),
    Row::keys::<get::GetEx>(),
    Row::keys::<many::MGet>(),
    Row::keys::<many::MSet>(),
    Row::keys::<many::MSetNx>(),
    Row::keys::<many::MSetEx>(),
    Row::keys::<range::Append>(),
    Row::keys::<get::StrLen>(),
    Row::keys::<range::SetRange>(),
    Row::keys::<range::GetRange>(),
    Row::keys::<range::SubStr>(),
    Row::keys::<lcs::Lcs>(),
    Row::keys::<compare::Digest>(),
    Row::keys::<compare::DelEx>(),
    Row::keys::<compare::DelIfEq>(),
    Row::keys::<bits::SetBit>(),
    Row::keys::<bits::GetBit>(),
    Row::keys::<bits::BitCount>(),
    Row::keys::<bits::BitPos>(),
    Row::keys::<bitop::BitOp>(),
    Row::keys::<bitfield::BitField>(),
    Row::keys::<bitfield::BitFieldRo>(),
];

#[cfg(test)]
mod tests {
    use super::COMMANDS;

    /// As `COMMAND INFO` of Redis 7.2 and of the versions that introduced the later ones.
    #[test]
    fn arities_are_those_of_redis() {
        let arities = [
            ("get", 2),
            ("set", -3),
            ("setnx", 3),
            ("setex", 4),
            ("psetex", 4),
            ("getset", 3),
            ("getdel", 2),
            ("getex", -2),
            ("mget", -2),
            ("mset", -3),
            ("msetnx", -3),
            ("msetex", -4),
            ("append", 3),
            ("strlen", 2),
            ("setrange", 4),
            ("getrange", 4),
            ("substr", 4),
            ("lcs", -3),
            ("digest", 2),
            ("delex", -2),
            ("delifeq", 3),
            ("setbit", 4),
            ("getbit", 3),
            ("bitcount", -2),
            ("bitpos", -3),
            ("bitop", -4),
            ("bitfield", -2),
            ("bitfield_ro", -2),
        ];
        let rows: Vec<(&str, i32)> = COMMANDS
            .iter()
            .map(|row| (row.spec.name, row.arity))
            .collect();
        assert_eq!(rows, arities);
    }
}
