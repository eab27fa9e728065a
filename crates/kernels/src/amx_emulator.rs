//! AMX for the tests of processors without it.
//!
//! There an instruction of AMX raises SIGILL. [`install`]ed, a handler reads the instruction from the program, does to
//! tiles in memory what the Intel SDM (volumes 2A and 2B) says it does, and goes on behind it: the kernels' inline assembly
//! runs as it stands. It knows of a kernel what the processor would, the instruction and the registers, and is as strict
//! as that: whatever would be a fault ends the process.

use crate::cpu_features::{amx_granted, detect_amx_int8};
use std::cell::{Cell, UnsafeCell};
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

mod tests;

const TILES: usize = 8;
const MOST_ROWS: usize = 16;
const MOST_BYTES: usize = 64;

/// Why an instruction is refused.
type Fault = &'static str;

type Tile = [[u8; MOST_BYTES]; MOST_ROWS];

/// What AMX adds to a thread's registers.
struct State {
    /// As `LDTILECFG` read it; all zeros without a configuration.
    config: [u8; 64],
    tiles: [Tile; TILES],
}

impl State {
    const INITIAL: Self = Self {
        config: [0; 64],
        tiles: [[[0; MOST_BYTES]; MOST_ROWS]; TILES],
    };

    fn row_bytes(&self, tile: usize) -> usize {
        size_in(&self.config, tile).0
    }

    fn rows(&self, tile: usize) -> usize {
        size_in(&self.config, tile).1
    }

    /// Refuses a tile that the configuration does not have.
    fn check(&self, tile: usize) -> Result<(), Fault> {
        if self.config[0] == 0 {
            Err("tiles are not configured")
        } else if self.rows(tile) == 0 {
            Err("the tile has no rows")
        } else {
            Ok(())
        }
    }
}

/// Bytes per row and rows of a tile.
fn size_in(config: &[u8; 64], tile: usize) -> (usize, usize) {
    let row_bytes = u16::from_le_bytes([config[16 + 2 * tile], config[17 + 2 * tile]]);
    (usize::from(row_bytes), usize::from(config[48 + tile]))
}

thread_local! {
    // Without a destructor and made at compile time: the handler touches memory and nothing else.
    static STATE: UnsafeCell<State> = const { UnsafeCell::new(State::INITIAL) };
    static PRODUCTS_ARE_WRONG: Cell<bool> = const { Cell::new(false) };
}

/// Whether instructions of AMX are emulated here: the processor lacks them, or Linux refuses their registers.
pub(crate) fn is_used() -> bool {
    static USED: OnceLock<bool> = OnceLock::new();
    *USED.get_or_init(|| !(amx_granted() && detect_amx_int8()))
}

/// Lets this process execute instructions of AMX, on the processor where it can.
pub(crate) fn install() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        if is_used() {
            set_handler(
                on_illegal_instruction as *const () as usize,
                libc::SA_SIGINFO,
            );
        }
    });
}

/// Runs `task` with the last bits of one number wrong in every product of tiles on this thread. The emulator [`is_used`].
pub(crate) fn with_wrong_products<T>(task: impl FnOnce() -> T) -> T {
    assert!(is_used(), "a processor's products are not ours to change");
    PRODUCTS_ARE_WRONG.set(true);
    let result = task();
    PRODUCTS_ARE_WRONG.set(false);
    result
}

/// Whether emulated tiles are configured on this thread.
pub(crate) fn is_configured() -> bool {
    // SAFETY: this thread is not in the handler, the only other place that accesses its state.
    STATE.with(|state| unsafe { (*state.get()).config[0] != 0 })
}

/// Numbers from -1 to 1 for products on tiles.
pub(crate) fn numbers(len: usize, seed: usize) -> Vec<f32> {
    let value = |i: usize| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 7) % 1000;
    (0..len).map(|i| value(i) as f32 / 500.0 - 1.0).collect()
}

fn set_handler(handler: usize, flags: c_int) {
    // SAFETY: all zero bits are an action without flags and with an empty mask; the call only reads it.
    let failed = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        libc::sigaction(libc::SIGILL, &raw const action, std::ptr::null_mut())
    };
    assert_eq!(failed, 0, "SIGILL cannot be handled");
}

/// General registers in the order of their numbers.
const REGISTERS: [c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// Only calls what a signal handler may.
extern "C" fn on_illegal_instruction(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: Linux passes the interrupted thread's context to a handler with SA_SIGINFO.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let saved = &mut context.uc_mcontext.gregs;
    let registers = REGISTERS.map(|register| saved[register as usize] as usize);
    let at = saved[libc::REG_RIP as usize] as *const u8;
    // SAFETY: the thread was about to execute what stands there, and to access the memory that it names. Its state is
    // accessed here alone, and SIGILL is blocked meanwhile.
    let done = STATE.with(|state| unsafe {
        let (instruction, next) = decode(at, &registers)?;
        perform(&mut *state.get(), instruction)?;
        Ok(next)
    });
    match done {
        Ok(next) => saved[libc::REG_RIP as usize] = next as i64,
        Err(fault) => die(fault),
    }
}

/// Says why and lets the instruction be executed once more, now without a handler: that ends the process.
fn die(fault: Fault) {
    let parts = ["illegal instruction: ", fault, "\n"].map(|part| libc::iovec {
        iov_base: part.as_ptr().cast_mut().cast(),
        iov_len: part.len(),
    });
    // SAFETY: the bytes are readable. Nothing is left to do about a message that cannot be written.
    unsafe { libc::writev(libc::STDERR_FILENO, parts.as_ptr(), 3) };
    set_handler(libc::SIG_DFL, 0);
}

/// The memory that an instruction names. Without an index register the stride is 0.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Address {
    start: usize,
    stride: usize,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Instruction {
    /// `LDTILECFG`
    LoadConfig(usize),
    /// `STTILECFG`
    StoreConfig(usize),
    /// `TILERELEASE`
    Release,
    /// `TILEZERO`
    Zero(usize),
    /// `TILELOADD`, `TILELOADDT1`
    Load(usize, Address),
    /// `TILESTORED`
    Store(Address, usize),
    /// `TDPBF16PS`
    MultiplyPairs([usize; 3]),
    /// `TDPBSSD`, `TDPBSUD`, `TDPBUSD`, `TDPBUUD`: which of the factors are signed.
    MultiplyBytes([usize; 3], [bool; 2]),
}

/// The bytes of an instruction, one after the other.
struct Code(*const u8);

impl Code {
    /// # Safety
    /// The instruction has another byte.
    unsafe fn byte(&mut self) -> u8 {
        // SAFETY: promised by the caller.
        unsafe {
            let byte = *self.0;
            self.0 = self.0.add(1);
            byte
        }
    }

    /// # Safety
    /// The instruction has a displacement of this length.
    unsafe fn displacement(&mut self, bytes: usize) -> usize {
        let mut read = || {
            // SAFETY: promised by the caller.
            unsafe { self.byte() }
        };
        let value = match bytes {
            0 => 0,
            1 => i32::from(read().cast_signed()),
            _ => i32::from_le_bytes([read(), read(), read(), read()]),
        };
        value as usize
    }
}

/// The instruction at `at`, and what follows it (volume 2A, chapter 2).
///
/// # Safety
/// A whole instruction is readable there.
unsafe fn decode(
    at: *const u8,
    registers: &[usize; 16],
) -> Result<(Instruction, *const u8), Fault> {
    const NOT_AMX: Fault = "not of AMX";
    const THREE_BYTE_VEX: u8 = 0xc4;
    // Neither W nor L: no such instruction has them.
    const WIDE_OR_LONG: u8 = 0x84;
    const MAP_0F38: u8 = 2;
    // Its prefixes, as VEX numbers them.
    const NONE: u8 = 0;
    const P66: u8 = 1;
    const PF3: u8 = 2;
    const PF2: u8 = 3;

    let mut code = Code(at);
    // SAFETY: every instruction has a byte, those after this prefix four more.
    let [r_x_b_map, w_v_l_prefix, opcode, modrm] = unsafe {
        if code.byte() != THREE_BYTE_VEX {
            return Err(NOT_AMX);
        }
        [code.byte(), code.byte(), code.byte(), code.byte()]
    };
    if r_x_b_map & 31 != MAP_0F38 || w_v_l_prefix & WIDE_OR_LONG != 0 {
        return Err(NOT_AMX);
    }
    // Inverted in the prefix: the fourth bits of register numbers, and a third operand.
    let high = |bit: u32| usize::from(!r_x_b_map >> bit & 1) << 3;
    let [high_reg, high_index, high_base] = [high(7), high(6), high(5)];
    let third = usize::from(!w_v_l_prefix >> 3 & 15);
    let prefix = w_v_l_prefix & 3;
    let (mode, reg, rm) = (
        modrm >> 6,
        usize::from(modrm >> 3 & 7),
        usize::from(modrm & 7),
    );
    let in_memory = mode != 3;
    let instruction = if opcode == 0x5c || opcode == 0x5e {
        if in_memory {
            return Err(NOT_AMX);
        }
        let tiles = [high_reg | reg, high_base | rm, third];
        match (opcode, prefix) {
            (0x5c, PF3) => Instruction::MultiplyPairs(tiles),
            (0x5e, NONE) => Instruction::MultiplyBytes(tiles, [false, false]),
            (0x5e, P66) => Instruction::MultiplyBytes(tiles, [false, true]),
            (0x5e, PF3) => Instruction::MultiplyBytes(tiles, [true, false]),
            (0x5e, PF2) => Instruction::MultiplyBytes(tiles, [true, true]),
            _ => return Err(NOT_AMX),
        }
    } else if third != 0 {
        return Err("VEX.vvvv names a register that the instruction does not have");
    } else if !in_memory {
        match (opcode, prefix, reg, rm) {
            (0x49, NONE, 0, 0) => Instruction::Release,
            (0x49, PF2, _, 0) => Instruction::Zero(high_reg | reg),
            _ => return Err(NOT_AMX),
        }
    } else {
        // SAFETY: ModRM says that the operand is in memory.
        let address = unsafe { address(&mut code, (mode, rm), [high_index, high_base], registers) };
        // Tiles need the SIB byte, even without an index.
        match (opcode, prefix, reg, rm) {
            (0x49, NONE, 0, _) => Instruction::LoadConfig(address.place()),
            (0x49, P66, 0, _) => Instruction::StoreConfig(address.place()),
            (0x4b, PF2 | P66, _, 4) => Instruction::Load(high_reg | reg, address),
            (0x4b, PF3, _, 4) => Instruction::Store(address, high_reg | reg),
            _ => return Err(NOT_AMX),
        }
    };
    let exist = match instruction {
        Instruction::MultiplyPairs(tiles) | Instruction::MultiplyBytes(tiles, _) => {
            tiles.iter().all(|&tile| tile < TILES)
        }
        Instruction::Zero(tile) | Instruction::Load(tile, _) | Instruction::Store(_, tile) => {
            tile < TILES
        }
        _ => true,
    };
    if exist {
        Ok((instruction, code.0))
    } else {
        Err("there are eight tiles")
    }
}

impl Address {
    /// Of an operand that is not strided.
    fn place(self) -> usize {
        self.start.wrapping_add(self.stride)
    }
}

/// The operand in memory; `code` stands behind the ModRM byte.
///
/// # Safety
/// The rest of the operand is readable there.
unsafe fn address(
    code: &mut Code,
    (mode, rm): (u8, usize),
    [high_index, high_base]: [usize; 2],
    registers: &[usize; 16],
) -> Address {
    const SIB: usize = 4;
    const NO_BASE: usize = 5;
    const NO_INDEX: usize = 4;

    let mut base = rm;
    let mut stride = 0;
    if rm == SIB {
        // SAFETY: ModRM says so.
        let sib = unsafe { code.byte() };
        base = usize::from(sib & 7);
        let index = high_index | usize::from(sib >> 3 & 7);
        if index != NO_INDEX {
            stride = registers[index] << (sib >> 6);
        }
    }
    let based = mode != 0 || base != NO_BASE;
    let displacement = match mode {
        _ if !based => 4,
        0 => 0,
        1 => 1,
        _ => 4,
    };
    // SAFETY: ModRM and SIB say so.
    let displacement = unsafe { code.displacement(displacement) };
    let base = if based {
        registers[high_base | base]
    } else if rm == SIB {
        0
    } else {
        // Relative to the next instruction; nothing follows the displacement.
        code.0 as usize
    };
    Address {
        start: base.wrapping_add(displacement),
        stride,
    }
}

/// # Safety
/// The memory that the instruction names is accessible.
unsafe fn perform(state: &mut State, instruction: Instruction) -> Result<(), Fault> {
    match instruction {
        Instruction::LoadConfig(from) => {
            // SAFETY: promised by the caller.
            let config = unsafe { (from as *const [u8; 64]).read_unaligned() };
            check_config(&config)?;
            *state = State {
                config,
                ..State::INITIAL
            };
        }
        Instruction::StoreConfig(to) => {
            // SAFETY: promised by the caller.
            unsafe { (to as *mut [u8; 64]).write_unaligned(state.config) };
        }
        Instruction::Release => *state = State::INITIAL,
        Instruction::Zero(tile) => {
            state.check(tile)?;
            state.tiles[tile] = State::INITIAL.tiles[tile];
        }
        Instruction::Load(tile, Address { start, stride }) => {
            state.check(tile)?;
            let (rows, bytes) = (state.rows(tile), state.row_bytes(tile));
            let mut loaded = State::INITIAL.tiles[tile];
            for (i, row) in loaded.iter_mut().enumerate().take(rows) {
                let from = start.wrapping_add(stride.wrapping_mul(i)) as *const u8;
                // SAFETY: promised by the caller; a row is no longer than the registers.
                unsafe { std::ptr::copy_nonoverlapping(from, row.as_mut_ptr(), bytes) };
            }
            state.tiles[tile] = loaded;
        }
        Instruction::Store(Address { start, stride }, tile) => {
            state.check(tile)?;
            let (rows, bytes) = (state.rows(tile), state.row_bytes(tile));
            for (i, row) in state.tiles[tile].iter().enumerate().take(rows) {
                let to = start.wrapping_add(stride.wrapping_mul(i)) as *mut u8;
                // SAFETY: promised by the caller; a row is no longer than the registers.
                unsafe { std::ptr::copy_nonoverlapping(row.as_ptr(), to, bytes) };
            }
        }
        Instruction::MultiplyPairs(tiles) => multiply(state, tiles, dot_of_pairs)?,
        Instruction::MultiplyBytes(tiles, signed) => {
            multiply(state, tiles, |sum, a, b| dot_of_bytes(sum, a, b, signed))?;
        }
    }
    Ok(())
}

/// `LDTILECFG` of palette 1. A row to start from is left by an interrupted load and never asked for by us.
fn check_config(config: &[u8; 64]) -> Result<(), Fault> {
    let unused = [&config[2..16], &config[32..48], &config[56..]];
    if config[0] != 1 {
        return Err("LDTILECFG: not palette 1");
    }
    if config[1] != 0 {
        return Err("LDTILECFG: starts within tiles");
    }
    if unused.into_iter().flatten().any(|&byte| byte != 0) {
        return Err("LDTILECFG: reserved bytes are not 0");
    }
    for tile in 0..TILES {
        let (row_bytes, rows) = size_in(config, tile);
        if row_bytes > MOST_BYTES || rows > MOST_ROWS {
            return Err("LDTILECFG: a tile is too large");
        }
        if (row_bytes == 0) != (rows == 0) {
            return Err("LDTILECFG: a tile has rows or columns alone");
        }
    }
    Ok(())
}

/// `c += a b` over units of 32 bits: `c` `[m][n]`, `a` `[m][k]`, `b` `[k][n]`.
fn multiply(
    state: &mut State,
    [c, a, b]: [usize; 3],
    dot: impl Fn([u8; 4], &[[u8; 4]], &[[u8; 4]]) -> [u8; 4],
) -> Result<(), Fault> {
    for tile in [c, a, b] {
        state.check(tile)?;
    }
    if c == a || c == b || a == b {
        return Err("a product of tiles that are not distinct");
    }
    if [c, a, b]
        .iter()
        .any(|&tile| !state.row_bytes(tile).is_multiple_of(4))
    {
        return Err("a product of tiles whose rows are not whole units");
    }
    let [m, n, k] = [state.rows(c), state.row_bytes(c) / 4, state.rows(b)];
    if state.rows(a) != m || state.row_bytes(b) / 4 != n || state.row_bytes(a) / 4 != k {
        return Err("a product of tiles whose sizes do not fit");
    }
    // What lies beyond the rows and columns becomes 0.
    let mut product = State::INITIAL.tiles[c];
    let (from, a, b) = (&state.tiles[c], &state.tiles[a], &state.tiles[b]);
    for i in 0..m {
        for j in 0..n {
            let at = 4 * j..4 * j + 4;
            let mut column = [[0; 4]; MOST_ROWS];
            for (unit, b) in column.iter_mut().zip(b).take(k) {
                unit.copy_from_slice(&b[at.clone()]);
            }
            let mut sum = [0; 4];
            sum.copy_from_slice(&from[i][at.clone()]);
            let sum = dot(sum, &a[i].as_chunks().0[..k], &column[..k]);
            product[i][at].copy_from_slice(&sum);
        }
    }
    if PRODUCTS_ARE_WRONG.get() {
        // The next integer, or the next float.
        product[0][0] = product[0][0].wrapping_add(1);
    }
    state.tiles[c] = product;
    Ok(())
}

/// `TDPBF16PS`: the lower and the upper halves are summed apart, with fused multiplications.
fn dot_of_pairs(sum: [u8; 4], a: &[[u8; 4]], b: &[[u8; 4]]) -> [u8; 4] {
    let float = |low: u8, high: u8| flushed(f32::from_le_bytes([0, 0, low, high]));
    let mut sums = [0.0_f32; 2];
    for (a, b) in a.iter().zip(b) {
        sums[0] = flushed(float(a[0], a[1]).mul_add(float(b[0], b[1]), sums[0]));
        sums[1] = flushed(float(a[2], a[3]).mul_add(float(b[2], b[3]), sums[1]));
    }
    let sum = flushed(f32::from_le_bytes(sum));
    flushed(sum + flushed(sums[0] + sums[1])).to_le_bytes()
}

/// Denormal numbers are 0 on the way in and out, whatever MXCSR says.
fn flushed(x: f32) -> f32 {
    if x.is_subnormal() {
        0.0_f32.copysign(x)
    } else {
        x
    }
}

/// `TDPBSSD` and the like.
fn dot_of_bytes(sum: [u8; 4], a: &[[u8; 4]], b: &[[u8; 4]], signed: [bool; 2]) -> [u8; 4] {
    let integer = |byte: u8, signed: bool| {
        if signed {
            i32::from(byte.cast_signed())
        } else {
            i32::from(byte)
        }
    };
    let factors = a.as_flattened().iter().zip(b.as_flattened());
    let sum = factors.fold(i32::from_le_bytes(sum), |sum, (&a, &b)| {
        sum.wrapping_add(integer(a, signed[0]) * integer(b, signed[1]))
    });
    sum.to_le_bytes()
}
