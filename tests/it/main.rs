//! All native tests, in one binary because linking many is slow.

mod response_cache;
