//! Tensors that stay in their file until someone asks for their numbers.

use half::{bf16, f16, slice::HalfFloatSliceExt};
use std::fmt;
use std::sync::Arc;
use vlm_kernels::MappedFile;

/// The number type of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Dtype {
    F64,
    F32,
    F16,
    Bf16,
    /// 8-bit floats and complex numbers can be listed, but not taken.
    F8E4M3,
    F8E5M2,
    C64,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
}

impl Dtype {
    const ALL: [(Self, &str, usize); 16] = [
        (Self::F64, "F64", 8),
        (Self::F32, "F32", 4),
        (Self::F16, "F16", 2),
        (Self::Bf16, "BF16", 2),
        (Self::F8E4M3, "F8_E4M3", 1),
        (Self::F8E5M2, "F8_E5M2", 1),
        (Self::C64, "C64", 8),
        (Self::I64, "I64", 8),
        (Self::I32, "I32", 4),
        (Self::I16, "I16", 2),
        (Self::I8, "I8", 1),
        (Self::U64, "U64", 8),
        (Self::U32, "U32", 4),
        (Self::U16, "U16", 2),
        (Self::U8, "U8", 1),
        (Self::Bool, "BOOL", 1),
    ];

    fn row(self) -> (Self, &'static str, usize) {
        let row = Self::ALL.into_iter().find(|row| row.0 == self);
        row.expect("every type is listed")
    }

    /// The name in safetensors headers, `BF16`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Bytes of one number.
    pub fn size(self) -> usize {
        self.row().2
    }

    /// The type that a safetensors header calls so.
    pub(super) fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|row| row.1 == name).map(|row| row.0)
    }

    /// Whether weights can be of this type.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::Bf16)
    }

    /// Whether indices, counts and flags can be of this type.
    pub fn is_integer(self) -> bool {
        !self.is_float() && !matches!(self, Self::F8E4M3 | Self::F8E5M2 | Self::C64)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A file in memory: mapped, or bytes that someone had already.
#[derive(Clone)]
pub(super) struct Source(Arc<dyn AsRef<[u8]> + Send + Sync>);

impl Source {
    pub fn mapped(file: MappedFile) -> Self {
        Self(Arc::new(file))
    }

    pub fn copied(bytes: &[u8]) -> Self {
        Self(Arc::new(bytes.to_vec()))
    }

    pub fn bytes(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

/// Numbers in a file: where the first one is and how to step along each dimension.
#[derive(Clone)]
pub(super) struct View {
    source: Source,
    dtype: Dtype,
    /// Byte of the first number.
    start: usize,
    shape: Vec<usize>,
    /// Numbers to step over, not bytes.
    strides: Vec<usize>,
}

/// Why a view was not made.
pub(super) type Reason = String;

/// The product of a shape, if there is one.
///
/// Also of an empty one, so that no part of the shape has a product that does not fit.
pub(super) fn elements(shape: &[usize]) -> Option<usize> {
    let extents = shape.iter().filter(|&&d| d > 0);
    let product = extents.copied().try_fold(1usize, usize::checked_mul)?;
    let empty = shape.contains(&0);
    (product <= isize::MAX as usize / 8).then_some(if empty { 0 } else { product })
}

/// Steps of a tensor without gaps.
pub(super) fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i].saturating_mul(shape[i]);
    }
    strides
}

/// The most dimensions of a tensor.
pub(super) const MAX_RANK: usize = 16;

/// Numbers that a tensor may repeat by steps of zero before it counts as an attempt to exhaust memory.
const MAX_REPEATED: usize = 1 << 24;

impl View {
    /// `region` is the part of the source that may be read, in bytes; `offset` the first number in it.
    pub fn new(
        source: &Source,
        region: (usize, usize),
        dtype: Dtype,
        offset: usize,
        shape: Vec<usize>,
        strides: Vec<usize>,
    ) -> Result<Self, Reason> {
        let (begin, end) = region;
        let bytes = source.bytes().get(begin..end);
        let there = bytes.ok_or("expected bytes of the file, found a place behind its end")?;
        let there = there.len() / dtype.size();
        if shape.len() > MAX_RANK || strides.len() != shape.len() {
            return Err(format!(
                "expected a stride for each of at most {MAX_RANK} dimensions, found shape {shape:?}, strides \
                 {strides:?}"
            ));
        }
        let count = elements(&shape)
            .ok_or_else(|| format!("expected a tensor that fits memory, found shape {shape:?}"))?;
        let last = if count == 0 {
            Some(0)
        } else {
            let steps = shape.iter().zip(&strides);
            steps
                .map(|(&d, &s)| (d - 1).checked_mul(s))
                .try_fold(offset, |at, step| at.checked_add(step?))
        };
        if count > 0 && last.is_none_or(|last| last >= there) {
            return Err(format!(
                "expected at most {there} numbers, found offset {offset}, shape {shape:?}, strides {strides:?}"
            ));
        }
        if count > there.max(MAX_REPEATED) {
            return Err(format!(
                "expected a tensor no larger than its storage of {there} numbers, found shape {shape:?}"
            ));
        }
        let start = if count == 0 {
            begin
        } else {
            begin + offset * dtype.size()
        };
        Ok(Self {
            source: source.clone(),
            dtype,
            start,
            shape,
            strides,
        })
    }

    fn count(&self) -> usize {
        self.shape.iter().product()
    }

    fn is_row_major(&self) -> bool {
        let mut dims = self.shape.iter().zip(&self.strides).rev();
        let mut step = 1;
        dims.all(|(&d, &s)| {
            let fits = d <= 1 || s == step;
            step *= d;
            fits
        })
    }

    /// Calls `each` with the bytes of consecutive numbers, in runs as long as they get.
    fn runs(&self, mut each: impl FnMut(&[u8])) {
        let (size, bytes) = (self.dtype.size(), self.source.bytes());
        if self.count() == 0 {
            return;
        }
        if self.is_row_major() {
            each(&bytes[self.start..][..self.count() * size]);
            return;
        }
        let mut place = vec![0; self.shape.len()];
        let mut at = self.start;
        loop {
            each(&bytes[at..][..size]);
            let mut axis = self.shape.len();
            loop {
                if axis == 0 {
                    return;
                }
                axis -= 1;
                place[axis] += 1;
                if place[axis] < self.shape[axis] {
                    at += self.strides[axis] * size;
                    break;
                }
                at -= self.strides[axis] * size * (self.shape[axis] - 1);
                place[axis] = 0;
            }
        }
    }

    fn numbers<const SIZE: usize, T>(&self, out: &mut Vec<T>, convert: impl Fn([u8; SIZE]) -> T) {
        self.runs(|run| out.extend(run.as_chunks().0.iter().map(|bytes| convert(*bytes))));
    }

    /// Half precision by the processor's own conversion, which is several times as fast.
    fn halves<H: Copy>(&self, out: &mut Vec<f32>, zero: H, from: fn([u8; 2]) -> H)
    where
        [H]: HalfFloatSliceExt,
    {
        self.runs(|run| {
            let mut halves = [zero; 512];
            for run in run.as_chunks().0.chunks(halves.len()) {
                for (half, bytes) in halves.iter_mut().zip(run) {
                    *half = from(*bytes);
                }
                let begin = out.len();
                out.resize(begin + run.len(), 0.0);
                halves[..run.len()].convert_to_f32_slice(&mut out[begin..]);
            }
        });
    }

    fn floats(&self, out: &mut Vec<f32>) -> Result<(), Reason> {
        match self.dtype {
            Dtype::F64 => self.numbers(out, |b| f64::from_le_bytes(b) as f32),
            Dtype::F32 => self.numbers(out, f32::from_le_bytes),
            Dtype::F16 => self.halves(out, f16::ZERO, f16::from_le_bytes),
            Dtype::Bf16 => self.halves(out, bf16::ZERO, bf16::from_le_bytes),
            other => return Err(format!("expected F64, F32, F16 or BF16, found {other}")),
        }
        Ok(())
    }

    fn integers(&self, out: &mut Vec<i64>) -> Result<(), Reason> {
        let mut too_large = None;
        match self.dtype {
            Dtype::I64 => self.numbers(out, i64::from_le_bytes),
            Dtype::I32 => self.numbers(out, |b| i32::from_le_bytes(b).into()),
            Dtype::I16 => self.numbers(out, |b| i16::from_le_bytes(b).into()),
            Dtype::I8 => self.numbers(out, |b| i8::from_le_bytes(b).into()),
            Dtype::U64 => self.runs(|run| {
                for bytes in run.as_chunks().0 {
                    let number = u64::from_le_bytes(*bytes);
                    out.push(number as i64);
                    if i64::try_from(number).is_err() {
                        too_large = Some(number);
                    }
                }
            }),
            Dtype::U32 => self.numbers(out, |b| u32::from_le_bytes(b).into()),
            Dtype::U16 => self.numbers(out, |b| u16::from_le_bytes(b).into()),
            Dtype::U8 => self.numbers(out, |b: [u8; 1]| b[0].into()),
            Dtype::Bool => self.numbers(out, |b: [u8; 1]| (b[0] != 0).into()),
            other => return Err(format!("expected integers, found {other}")),
        }
        match too_large {
            Some(number) => Err(format!("expected at most 2^63 - 1, found {number}")),
            None => Ok(()),
        }
    }

    /// Some of the rows, without touching them.
    fn rows(&self, begin: usize, count: usize) -> Self {
        let mut rows = self.clone();
        rows.shape[0] = count;
        if rows.count() > 0 {
            rows.start += begin * self.strides[0] * self.dtype.size();
        }
        rows
    }
}

/// A tensor as it will be when it is taken.
#[derive(Clone)]
pub(super) struct Tensor {
    pub shape: Vec<usize>,
    numbers: Numbers,
}

#[derive(Clone)]
enum Numbers {
    Stored(View),
    /// Numbers that were computed at loading, such as an interpolated table.
    Computed(Arc<Vec<f32>>),
    /// One after the other.
    Joined(Vec<Numbers>),
    /// `[rows, columns]` read column by column.
    Transposed(Box<Numbers>, [usize; 2]),
    /// Some consecutive numbers of others.
    Part(Box<Numbers>, [usize; 2]),
}

impl From<View> for Tensor {
    fn from(view: View) -> Self {
        Self {
            shape: view.shape.clone(),
            numbers: Numbers::Stored(view),
        }
    }
}

impl Tensor {
    pub fn computed(shape: Vec<usize>, values: Vec<f32>) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        Self {
            shape,
            numbers: Numbers::Computed(Arc::new(values)),
        }
    }

    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn dtype(&self) -> Dtype {
        self.numbers.dtype()
    }

    /// The same numbers in the same order under another shape.
    pub fn reshaped(&self, shape: Vec<usize>) -> Self {
        debug_assert_eq!(elements(&shape), Some(self.count()));
        Self {
            shape,
            numbers: self.numbers.clone(),
        }
    }

    /// Tensors joined along their first dimension, which they must have.
    pub fn stacked(parts: Vec<Self>) -> Option<Self> {
        let inner = parts.first()?.shape.get(1..)?.to_vec();
        let mut rows = 0usize;
        for part in &parts {
            if part.shape.get(1..) != Some(&inner) {
                return None;
            }
            rows = rows.checked_add(part.shape[0])?;
        }
        let shape: Vec<usize> = std::iter::once(rows).chain(inner).collect();
        elements(&shape)?;
        Some(Self {
            shape,
            numbers: Numbers::Joined(parts.into_iter().map(|part| part.numbers).collect()),
        })
    }

    /// Some of the rows of a tensor that has a first dimension.
    pub fn rows(&self, begin: usize, count: usize) -> Self {
        let mut shape = self.shape.clone();
        shape[0] = count;
        let width: usize = shape[1..].iter().product();
        let numbers = match &self.numbers {
            // also where the shape was changed since, as long as rows are rows
            Numbers::Stored(view) if view.shape.first() == Some(&self.shape[0]) => {
                Numbers::Stored(view.rows(begin, count))
            }
            other => Numbers::Part(Box::new(other.clone()), [begin * width, count * width]),
        };
        Self { shape, numbers }
    }

    /// A matrix with rows and columns exchanged.
    pub fn transposed(&self) -> Option<Self> {
        let &[rows, columns] = self.shape.as_slice() else {
            return None;
        };
        Some(Self {
            shape: vec![columns, rows],
            numbers: Numbers::Transposed(Box::new(self.numbers.clone()), [rows, columns]),
        })
    }

    /// The numbers as f32.
    pub fn floats(&self) -> Result<Vec<f32>, Reason> {
        let mut values = Vec::with_capacity(self.count());
        self.numbers.floats(&mut values)?;
        // a sum of zeros unless something is infinite or NaN; vectorises where `is_finite` with an early exit does not
        let sums = values.chunks(1 << 12);
        let finite = |chunk: &[f32]| chunk.iter().fold(0.0, |sum, v| sum + v * 0.0) == 0.0;
        for chunk in sums {
            if let (false, Some(bad)) = (finite(chunk), chunk.iter().find(|v| !v.is_finite())) {
                return Err(format!("expected finite weights, found {bad}"));
            }
        }
        Ok(values)
    }

    pub fn integers(&self) -> Result<Vec<i64>, Reason> {
        match &self.numbers {
            Numbers::Stored(view) => {
                let mut values = Vec::with_capacity(self.count());
                view.integers(&mut values)?;
                Ok(values)
            }
            _ => Err("expected integers, found a tensor that was put together of others".into()),
        }
    }

    pub fn bytes(&self) -> Result<Vec<u8>, Reason> {
        match &self.numbers {
            Numbers::Stored(view) if view.dtype == Dtype::U8 => {
                let mut values = Vec::with_capacity(self.count());
                view.runs(|run| values.extend_from_slice(run));
                Ok(values)
            }
            other => Err(format!("expected U8, found {}", other.dtype())),
        }
    }

    /// Whether both are the same bytes of the same file, as tied weights are.
    pub fn same_place(&self, other: &Self) -> bool {
        let (Numbers::Stored(a), Numbers::Stored(b)) = (&self.numbers, &other.numbers) else {
            return false;
        };
        Arc::ptr_eq(&a.source.0, &b.source.0)
            && (a.start, a.dtype, &a.shape, &a.strides) == (b.start, b.dtype, &b.shape, &b.strides)
    }
}

impl Numbers {
    fn dtype(&self) -> Dtype {
        match self {
            Self::Stored(view) => view.dtype,
            Self::Computed(_) => Dtype::F32,
            Self::Joined(parts) => parts.first().map_or(Dtype::F32, Self::dtype),
            Self::Transposed(inner, _) | Self::Part(inner, _) => inner.dtype(),
        }
    }

    fn floats(&self, out: &mut Vec<f32>) -> Result<(), Reason> {
        match self {
            Self::Stored(view) => view.floats(out)?,
            Self::Computed(values) => out.extend_from_slice(values),
            Self::Joined(parts) => parts.iter().try_for_each(|part| part.floats(out))?,
            &Self::Transposed(ref inner, [rows, columns]) => {
                let mut values = Vec::with_capacity(rows * columns);
                inner.floats(&mut values)?;
                out.extend(
                    (0..columns)
                        .flat_map(|c| (0..rows).map(move |r| (r, c)))
                        .map(|(r, c)| values[r * columns + c]),
                );
            }
            &Self::Part(ref inner, [begin, count]) => {
                let mut values = Vec::new();
                inner.floats(&mut values)?;
                out.extend_from_slice(&values[begin..][..count]);
            }
        }
        Ok(())
    }
}
