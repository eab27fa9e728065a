//! CPU arithmetic on plain slices.
#![allow(unsafe_code)]
