//! A weight's packed copy, kept from one inference call to the next.

use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::Bytes;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use vlm_kernels::quant::{BlockFormat, Int8Weights, PackedMatrix, QuantizedMatrix, quantize};
use vlm_kernels::{PackedWeights, Precision};

/// How inference keeps the weights of linear layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightFormat {
    /// Floats in the precision of matrix products.
    Float,
    /// 8-bit integers with a scale per output; activations are rounded to 8 bits too.
    Int8,
    /// Blocks of 32 4-bit integers with a scale (Q4_0); activations as with [`Self::Int8`], which also takes layers
    /// whose inputs are no whole blocks.
    Int4,
}

/// A weight prepared for products.
pub(super) enum Kept {
    Float(PackedWeights),
    Int8(Int8Weights),
    Blocks(PackedMatrix),
}

impl Kept {
    /// Prepares `values` `[n, k]`.
    fn new(format: WeightFormat, precision: Precision, values: &[f32], n: usize, k: usize) -> Self {
        match format {
            WeightFormat::Float => Self::Float(PackedWeights::new(precision, values, n, k)),
            WeightFormat::Int8 => Self::Int8(Int8Weights::quantize(values, n, k)),
            WeightFormat::Int4 => {
                let stored = quantize(BlockFormat::Q4_0, values);
                let packed = stored
                    .and_then(|data| QuantizedMatrix::new(BlockFormat::Q4_0, n, k, data)?.pack());
                match packed {
                    Ok(packed) => Self::Blocks(packed),
                    // rows that are no whole blocks
                    Err(_) => Self::Int8(Int8Weights::quantize(values, n, k)),
                }
            }
        }
    }
}

/// Room for the packed copy of one weight, made when inference first needs it on a CPU with our kernels.
///
/// Clones share the copy. It costs 4 bytes per element in f32 and 2 in bfloat16 beside the weight itself, lives as long as
/// the last clone, and is never stale: it belongs to one storage of the weight, which Burn replaces instead of writing to
/// it, because the entry's weak reference makes that storage a shared one (`Arc::get_mut` and `Arc::make_mut` in Burn's
/// Flex backend). Tracked (training) calls make no copy and give an old one back.
#[derive(Clone, Debug, Default)]
pub struct PackedWeight(Arc<Mutex<Option<Entry>>>);

#[derive(Debug)]
struct Entry {
    storage: Weak<Bytes>,
    layout: Layout,
    precision: Precision,
    format: WeightFormat,
    packed: Arc<Kept>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Float(_) => "floats",
            Self::Int8(_) => "8-bit integers",
            Self::Blocks(_) => "blocks",
        })
    }
}

impl PackedWeight {
    /// The packed form of `w`, `[N, K]`.
    pub(super) fn get(
        &self,
        w: &FlexTensor,
        precision: Precision,
        format: WeightFormat,
    ) -> Arc<Kept> {
        let storage = w.data_arc();
        // An entry is replaced as a whole, so one whose maker panicked is as good as any other.
        let mut entry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = &*entry {
            // The weak reference keeps the address from being used again.
            let same = Weak::as_ptr(&entry.storage) == Arc::as_ptr(&storage);
            if same
                && entry.layout == *w.layout()
                && entry.precision == precision
                && entry.format == format
            {
                return entry.packed.clone();
            }
        }
        *entry = None;
        let whole = w.to_contiguous();
        let values: &[f32] = whole.as_slice().expect("contiguous f32 weight");
        let [n, k] = [w.layout().shape()[0], w.layout().shape()[1]];
        let packed = Arc::new(Kept::new(format, precision, values, n, k));
        *entry = Some(Entry {
            storage: Arc::downgrade(&storage),
            layout: w.layout().clone(),
            precision,
            format,
            packed: packed.clone(),
        });
        packed
    }

    /// Gives the copy back.
    pub(super) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
