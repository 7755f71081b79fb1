//! Screen sources.
