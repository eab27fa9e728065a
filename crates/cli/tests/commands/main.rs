//! The binary, as a person or a script meets it: what it prints, where, and with which exit code.

mod albef;
mod detect;
mod eval_detect;
mod evaluation;
mod general;
mod models;
mod pictures;
mod regions;
mod sets;
mod speed;
mod support;
mod training;
mod tree;
mod verifying;
mod world;
