//! The content of a message (RFC 5322) as bytes: its header section is split, looked at and
//! repaired without ever being taken apart and written again, so that what is not ours to change
//! stays as the client wrote it and foreign signatures keep their meaning.
//!
//! Only CRLF ends a line here. A lone CR or LF is an ordinary byte, as in RFC 6376; the SMTP
//! server refuses such lines before they come here.

mod binary;
mod date;
mod fields;
mod header_end;
mod html;
mod inspect;
mod labels;
mod lines;
mod mime;
mod received;
mod repair;
mod signed;
mod times;
mod tls_required;
mod tokens;

pub use binary::{BinaryError, Converter};
pub use date::{date_text, timestamp_text};
pub use fields::{Field, Fields, fields};
pub use header_end::HeaderEnd;
pub use html::Page;
pub use inspect::{Author, AuthorError, Inspection, MAX_RECEIVED, inspect};
pub use labels::{Labels, LabelsError, labels};
pub use lines::{LONGEST_LINE, LineBreaker, LineWatch, LongLine, has_long_line};
pub use mime::{BrokenMime, Content, Piece, Text, Wanted, read_content, read_pieces, subject};
pub use received::{Protocol, ReceivedInfo, received_field};
pub use repair::{Addition, Additions, WARNING, message_id_text, repair};
pub use signed::SignedNames;
pub use times::{MOST_AHEAD_MS, Times, TimesError, times};
pub use tls_required::tls_is_optional;
