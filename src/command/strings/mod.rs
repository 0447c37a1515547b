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
