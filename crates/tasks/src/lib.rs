//! What a user wants: prompt in, answer out, score.
#![forbid(unsafe_code)]
