//! What every thread needs and what knows nothing of Holt: stopping, owned threads, locks, clocks, cancelling.
//!
//! No threads of its own.

pub mod cancel;
pub mod clock;
pub mod fields;
pub mod headers;
pub mod json;
pub mod lock;
pub mod order;
pub mod slot;
pub mod stop;
pub mod text;
pub mod threads;

pub use cancel::Cancel;
pub use headers::Headers;
pub use lock::lock;
pub use slot::Slot;
pub use stop::{Stop, Stopper};
pub use threads::Threads;
