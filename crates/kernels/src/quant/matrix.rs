//! Matrices in block formats.

use super::activations::{Activations, Rounding, Sums, with_rounded};
use super::aligned::AlignedBytes;
#[cfg(target_arch = "x86_64")]
use super::amx_blocks;
use super::format::BlockFormat;
use super::int8::MOST_ROWS_WITHOUT_AMX;
use super::lanes::{PANEL, byte_zero};
use super::layout::{self, Packing, Source, panel_block_bytes};
use super::product::{FEW_ROWS, Product, few_rows, many_rows, scratch_len, tile_for};
use super::{QuantError, checked_len};
use crate::parallel::{self, SharedMut};
use crate::scratch::with_scratch;
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;

/// A matrix as it stands in a file: `rows` rows of `cols` weights in blocks of `format`.
#[derive(Clone, Debug)]
pub struct QuantizedMatrix<'a> {
    format: BlockFormat,
    rows: usize,
    cols: usize,
    data: Cow<'a, [u8]>,
}

impl<'a> QuantizedMatrix<'a> {
    /// A matrix over `data`, whose length is checked.
    ///
    /// # Errors
    /// `cols` is not a multiple of the block, or `data` is not as long as the shape says.
    pub fn new(
        format: BlockFormat,
        rows: usize,
        cols: usize,
        data: impl Into<Cow<'a, [u8]>>,
    ) -> Result<Self, QuantError> {
        let data = data.into();
        let expected = checked_len(rows, format.row_bytes(cols)?)?;
        if data.len() != expected {
            return Err(QuantError::WrongLength {
                format,
                rows,
                cols,
                expected,
                found: data.len(),
            });
        }
        Ok(Self {
            format,
            rows,
            cols,
            data,
        })
    }

    /// The format of the weights.
    #[must_use]
    pub fn format(&self) -> BlockFormat {
        self.format
    }

    /// Number of rows: outputs of a linear layer.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Weights per row: inputs of a linear layer.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The blocks, row after row.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    fn row_bytes(&self) -> usize {
        self.cols / self.format.block_len() * self.format.block_bytes()
    }

    /// Row `row` as `f32` into `out`, `[cols]`.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        check_row(row, [self.rows, self.cols], out);
        let len = self.row_bytes();
        self.format
            .dequantize_blocks(&self.data[row * len..][..len], out);
    }

    /// All rows as `f32` into `out`, `[rows, cols]`.
    pub fn dequantize(&self, out: &mut [f32]) {
        assert_eq!(
            out.len(),
            self.rows * self.cols,
            "dequantize: out is not [{}, {}]",
            self.rows,
            self.cols
        );
        if !out.is_empty() {
            out.par_chunks_mut(self.cols)
                .enumerate()
                .for_each(|(row, out)| self.dequantize_row(row, out));
        }
    }

    /// Packs the weights for products. The result needs as much memory as `data` (and up to 3 %
    /// more); it replaces the matrix, also where single rows are read.
    ///
    /// # Errors
    /// The format is not quantized, or the size does not fit the address space.
    pub fn pack(&self) -> Result<PackedMatrix, QuantError> {
        let (format, rows, cols) = (self.format, self.rows, self.cols);
        if !format.is_quantized() {
            return Err(QuantError::NotQuantized { format });
        }
        let blocks = cols / format.block_len();
        let panel_bytes = checked_len(blocks, panel_block_bytes(format))?;
        let mut data = AlignedBytes::zeroed(checked_len(rows.div_ceil(PANEL), panel_bytes)?);
        if panel_bytes > 0 {
            let row_bytes = self.row_bytes();
            let packing = Packing::new(format);
            data.par_chunks_exact_mut(panel_bytes)
                .enumerate()
                .for_each(|(panel, packed)| {
                    let first = panel * PANEL;
                    for row in first..(first + PANEL).min(rows) {
                        let blocks = self.data[row * row_bytes..][..row_bytes]
                            .chunks_exact(format.block_bytes());
                        let packed = packed.chunks_exact_mut(panel_block_bytes(format));
                        for (block, packed) in blocks.zip(packed) {
                            packing.pack_block(&format.read_block(block), row - first, packed);
                        }
                    }
                });
        }
        Ok(PackedMatrix {
            format,
            rows,
            cols,
            data,
        })
    }
}

/// Panics unless a matrix of `[rows, cols]` has the row and `out` room for it.
fn check_row(row: usize, [rows, cols]: [usize; 2], out: &[f32]) {
    assert!(row < rows, "dequantize_row: no row {row}");
    assert_eq!(out.len(), cols, "dequantize_row: out is not [{cols}]");
}

/// A matrix of quantized weights, packed for products with activations.
pub struct PackedMatrix {
    format: BlockFormat,
    rows: usize,
    cols: usize,
    /// Panels of 16 rows as the module `layout` says; rows that fill up the last are 0.
    data: AlignedBytes,
}

impl PackedMatrix {
    /// The format of the weights.
    #[must_use]
    pub fn format(&self) -> BlockFormat {
        self.format
    }

    /// Number of rows: outputs of a linear layer.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Weights per row: inputs of a linear layer.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes of memory that the weights take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Row `row` as `f32` into `out`, `[cols]`, exactly as [`QuantizedMatrix::dequantize_row`]
    /// gives it: a token's embedding, from the weights that also compute the logits.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        check_row(row, [self.rows, self.cols], out);
        let block_bytes = panel_block_bytes(self.format);
        let panel_bytes = self.blocks() * block_bytes;
        let panel = &self.data[row / PANEL * panel_bytes..][..panel_bytes];
        let out = out.chunks_exact_mut(self.format.block_len());
        let packing = Packing::new(self.format);
        for (packed, out) in panel.chunks_exact(block_bytes).zip(out) {
            packing
                .unpack_block(packed, row % PANEL)
                .dequantize(self.format, out);
        }
    }

    /// `out[m, rows] = x[m, cols] weights^T`, the activations rounded to 8 bits in blocks as long as
    /// those of the weights.
    ///
    /// A row of `x` with an element that is not finite gives a row of NaN.
    pub fn matmul(&self, x: &[f32], m: usize, out: &mut [f32]) {
        matmul_shared(x, m, &mut [(self, out)]);
    }

    /// `out[rows] = weights x`, for `x` `[cols]`: [`Self::matmul`] of one row.
    pub fn matvec(&self, x: &[f32], out: &mut [f32]) {
        self.matmul(x, 1, out);
    }

    #[cfg(all(test, target_arch = "x86_64", target_os = "linux", not(miri)))]
    pub(super) fn data(&self) -> &[u8] {
        &self.data
    }

    fn blocks(&self) -> usize {
        self.cols / self.format.block_len()
    }

    fn panels(&self) -> usize {
        self.rows.div_ceil(PANEL)
    }

    fn rounding(&self, on_amx: bool) -> Rounding {
        let format = self.format;
        if on_amx {
            return amx_rounding(format);
        }
        let sums = match format {
            _ if format.has_mins() => Sums::Plain,
            BlockFormat::Q8_0 => Sums::Start { zero: byte_zero() },
            _ => Sums::Start {
                zero: format.zero(),
            },
        };
        Rounding {
            block: format.block_len(),
            group: format.group_len(),
            sums,
            k_step: format.block_len(),
            row_step: 1,
        }
    }
}

/// [`PackedMatrix::matmul`] of several matrices (query, key and value; gate and up) with the same
/// `x` `[m, cols]`: activations are rounded once per kind of block, and all products are one
/// parallel job, which for a single row matters.
pub fn matmul_shared(x: &[f32], m: usize, products: &mut [(&PackedMatrix, &mut [f32])]) {
    let on_amx = m > MOST_ROWS_WITHOUT_AMX && super::blocks_run_on_amx();
    matmul_shared_on(x, m, products, on_amx);
}

/// [`matmul_shared`] with AMX, which must be there then, or without.
pub(super) fn matmul_shared_on(
    x: &[f32],
    m: usize,
    products: &mut [(&PackedMatrix, &mut [f32])],
    on_amx: bool,
) {
    for (matrix, out) in products.iter_mut() {
        assert_eq!(
            x.len(),
            m * matrix.cols,
            "matmul: x is not [{m}, {}]",
            matrix.cols
        );
        assert_eq!(
            out.len(),
            m * matrix.rows,
            "matmul: out is not [{m}, {}]",
            matrix.rows
        );
        if matrix.cols == 0 {
            out.fill(0.0);
        }
    }
    let mut jobs: Vec<Job> = products
        .iter_mut()
        .filter(|(matrix, out)| !out.is_empty() && matrix.cols > 0)
        .map(|(matrix, out)| Job {
            matrix,
            rounding: matrix.rounding(on_amx),
            activations: None,
            out: SharedMut::new(out),
        })
        .collect();
    round_then_run(x, m, &mut jobs, on_amx);
}

/// One matrix of a call.
struct Job<'a> {
    matrix: &'a PackedMatrix,
    rounding: Rounding,
    activations: Option<Activations<'a>>,
    out: SharedMut,
}

/// Rounds `x` for the first job that lacks it and those that round alike, then goes on with the
/// rest; once all have theirs, runs them.
fn round_then_run(x: &[f32], m: usize, jobs: &mut [Job], on_amx: bool) {
    let Some(first) = jobs.iter().find(|job| job.activations.is_none()) else {
        return run(m, jobs, on_amx);
    };
    let rounding = first.rounding;
    with_rounded(
        x,
        m,
        first.matrix.cols,
        rounding,
        if on_amx { 1 } else { tile_for(m) },
        |activations| {
            let mut ready: Vec<Job> = jobs
                .iter()
                .map(|job| Job {
                    activations: job
                        .activations
                        .or_else(|| (job.rounding == rounding).then_some(activations)),
                    ..*job
                })
                .collect();
            round_then_run(x, m, &mut ready, on_amx);
        },
    );
}

/// Cuts the products into tasks. Every output is computed by one of them in a fixed order, however
/// many there are.
fn run(m: usize, jobs: &[Job], on_amx: bool) {
    /// Bytes of weights that are worth a task, and rows of activations per task.
    const TASK_BYTES: usize = 24 * 1024;
    const TASK_ROWS: usize = 256;
    /// Products of integers per task.
    const TASK_WORK: usize = 1 << 21;

    struct Cut {
        panels_per_task: usize,
        column_tasks: usize,
        row_tasks: usize,
    }
    let few = m <= FEW_ROWS;
    let cuts: Vec<Cut> = jobs
        .iter()
        .map(|job| {
            let panels_per_task = if few {
                TASK_BYTES / (job.matrix.data.len() / job.matrix.panels())
            } else {
                TASK_WORK / (m.min(TASK_ROWS) * PANEL * job.matrix.cols)
            };
            let panels_per_task = panels_per_task.max(1);
            Cut {
                panels_per_task,
                column_tasks: job.matrix.panels().div_ceil(panels_per_task),
                row_tasks: if few { 1 } else { m.div_ceil(TASK_ROWS) },
            }
        })
        .collect();
    let count = cuts
        .iter()
        .map(|cut| cut.column_tasks * cut.row_tasks)
        .sum();
    parallel::for_each_task(count, |mut task| {
        let mut which = 0;
        while task >= cuts[which].column_tasks * cuts[which].row_tasks {
            task -= cuts[which].column_tasks * cuts[which].row_tasks;
            which += 1;
        }
        let (job, cut) = (&jobs[which], &cuts[which]);
        let (column, row) = (task / cut.row_tasks, task % cut.row_tasks);
        let first = column * cut.panels_per_task;
        let panels = first..(first + cut.panels_per_task).min(job.matrix.panels());
        let activations = job.activations.expect("rounded before");
        let tiles_per_task = TASK_ROWS / activations.tile.max(1);
        let tiles = row * tiles_per_task..((row + 1) * tiles_per_task).min(activations.panels);
        let product = Product {
            weights: &job.matrix.data,
            blocks: job.matrix.blocks(),
            n: job.matrix.rows,
            m,
            activations,
            out: job.out,
        };
        let kernel = match (few, on_amx) {
            (true, _) => Kernel::FewRows,
            (false, false) => Kernel::ManyRows,
            (false, true) => Kernel::Amx,
        };
        // SAFETY: a `PackedMatrix` holds whole panels, `out` was checked, and tasks are disjoint.
        unsafe {
            match job.matrix.format {
                BlockFormat::Q4_0 => part::<layout::Q4_0>(&product, panels, tiles, kernel),
                BlockFormat::Q5_0 => part::<layout::Q5_0>(&product, panels, tiles, kernel),
                BlockFormat::Q8_0 => part::<layout::Q8_0>(&product, panels, tiles, kernel),
                BlockFormat::Q4K => part::<layout::Q4K>(&product, panels, tiles, kernel),
                BlockFormat::Q5K => part::<layout::Q5K>(&product, panels, tiles, kernel),
                BlockFormat::Q6K => part::<layout::Q6K>(&product, panels, tiles, kernel),
                other => unreachable!("{other:?} is never packed"),
            }
        }
    });
}

/// What computes a part of a product.
#[derive(Clone, Copy)]
enum Kernel {
    FewRows,
    ManyRows,
    /// Chosen where it is available alone.
    Amx,
}

/// # Safety
/// As for [`few_rows`] and [`many_rows`].
unsafe fn part<F: Source>(
    product: &Product,
    panels: Range<usize>,
    tiles: Range<usize>,
    kernel: Kernel,
) {
    match kernel {
        // SAFETY: promised by the caller.
        Kernel::FewRows => unsafe { few_rows::<F>(product, panels) },
        Kernel::ManyRows => {
            let len = scratch_len::<F>(tiles.len(), product.activations.tile);
            with_scratch(len, |scratch| {
                // SAFETY: promised by the caller.
                unsafe { many_rows::<F>(product, panels, tiles, scratch) }
            });
        }
        #[cfg(target_arch = "x86_64")]
        Kernel::Amx => with_scratch(amx_blocks::scratch_len::<F>(tiles.len()), |scratch| {
            // SAFETY: promised by the caller; tiles are rows, in whole blocks.
            unsafe { amx_blocks::many_rows::<F>(product, panels, tiles, scratch) }
        }),
        #[cfg(not(target_arch = "x86_64"))]
        Kernel::Amx => unreachable!("there is no AMX"),
    }
}

#[cfg(target_arch = "x86_64")]
use amx_blocks::rounding as amx_rounding;

#[cfg(not(target_arch = "x86_64"))]
fn amx_rounding(_: BlockFormat) -> Rounding {
    unreachable!("there is no AMX")
}
