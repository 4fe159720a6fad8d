//! An opened file. Opening reads only the header page. Everything else is read on demand, with
//! positioned reads, and checked at each read. So truncating or overwriting an open file causes
//! misses.
//!
//! Rules shared by the parts of this module:
//! 1. A look-up never fails. Unreadable or invalid data counts as absent, and is counted in
//!    [`Damage`].
//! 2. A bucket that was unreadable once is dead for the life of the snapshot (`damage.rs`), and so
//!    is a tail of the eager records. Every way to see an entry, including reading all, respects
//!    this, also after a move (`moved.rs`). Otherwise, a key deleted by a caller that could
//!    not see the key would return.
//! 3. This module does not know the time; it returns deadlines.
//! 4. Memory follows read and verified data, not the claims of the header or a record: a file may
//!    be nearly all holes, and of any length.
//!
//! The parts, each of which uses earlier parts only: `damage` and `moved`; `opened`, the opened
//! file; `open`, `unpack` and `deadlines`; `source`, the form of walks; `window`, which loads their
//! records; `lookup`; `places`; and the walks `records`, `eager` and `salvage`.

mod damage;
mod deadlines;
mod eager;
mod lookup;
mod moved;
mod open;
mod opened;
mod places;
mod records;
mod salvage;
mod source;
mod unpack;
mod window;

pub use damage::Damage;
pub use deadlines::{Deadlines, Due};
pub use eager::EagerRecords;
pub use lookup::{FoundEntry, Scratch};
pub(crate) use moved::Ranks;
pub(crate) use open::{Ends, header_error, read_header};
pub use opened::Snapshot;
pub use places::{Layout, RecordPlace};
pub use records::Records;
pub use salvage::Salvage;
pub use source::{Item, Loss, Record, Source};
pub(crate) use unpack::Stored;
pub(crate) use window::Reader;
