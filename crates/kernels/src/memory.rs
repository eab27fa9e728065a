//! Memory for results.

/// A vector of `n` numbers of no particular value, for kernels that write every element.
///
/// Zeroing the results of a large model costs about as much as its norms and activations, and it runs on one thread.
/// With debug assertions the vector is full of NaN, so a test of a kernel that leaves an element unwritten
/// fails.
#[cfg(not(any(miri, debug_assertions)))]
pub fn unfilled(n: usize) -> Vec<f32> {
    let mut v: Vec<f32> = Vec::with_capacity(n);
    // SAFETY: the assembly block may write to memory as far as the compiler knows, which makes the contents of
    // the allocation unspecified but initialised; every bit pattern is an f32.
    unsafe {
        core::arch::asm!("/* {0} */", in(reg) v.as_mut_ptr(), options(nostack, preserves_flags));
        v.set_len(n);
    }
    v
}

/// A vector of `n` NaNs: the checking version of the function of the same name.
#[cfg(any(miri, debug_assertions))]
pub fn unfilled(n: usize) -> Vec<f32> {
    vec![f32::NAN; n]
}

/// Asks the C library's allocator to keep large freed blocks instead of returning them to the system.
///
/// A training step frees and allocates the same sizes again and again; returned blocks cost a page fault for
/// every 4 KiB. Meant for programs, once at their start; does nothing where the allocator is another.
pub fn keep_freed_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` takes two integers and only changes the allocator's limits.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}
