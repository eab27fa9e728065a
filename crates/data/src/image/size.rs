//! What size a picture is brought to.

/// The size that a picture is resized to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Exactly this, whatever the aspect ratio.
    Exact {
        /// Pixels.
        height: u32,
        /// Pixels.
        width: u32,
    },
    /// The shorter side, the longer one in proportion, truncated.
    ShortestEdge(u32),
    /// The shorter side, unless the longer one would exceed `longest`.
    EdgeRange {
        /// Pixels.
        shortest: u32,
        /// Pixels.
        longest: u32,
    },
    /// The same as maskrcnn-benchmark computes it: the longer side in proportion to the rounded shorter one.
    EdgeRangeRounded {
        /// Pixels.
        shortest: u32,
        /// Pixels.
        longest: u32,
    },
    /// As large as fits, in proportion, truncated.
    Within {
        /// Pixels.
        height: u32,
        /// Pixels.
        width: u32,
    },
    /// As small as covers this, in proportion, rounded: open_clip's `shortest` of an oblong size.
    Covering {
        /// Pixels.
        height: u32,
        /// Pixels.
        width: u32,
    },
    /// As large as fits, in proportion, rounded: open_clip's `longest`.
    Fitting {
        /// Pixels.
        height: u32,
        /// Pixels.
        width: u32,
    },
}

impl Size {
    /// (width, height) that a picture of `width` × `height` is brought to, each in the arithmetic
    /// of its reference function; 0 where that gives 0.
    pub fn resolve(self, width: u32, height: u32) -> (u64, u64) {
        let (w, h) = (f64::from(width), f64::from(height));
        let (short, long) = (w.min(h), w.max(h));
        match self {
            Self::Exact { height, width } => (width.into(), height.into()),
            // get_resize_output_image_size
            Self::ShortestEdge(edge) => {
                let other = (f64::from(edge) * long / short) as u64;
                if width <= height {
                    (edge.into(), other)
                } else {
                    (other, edge.into())
                }
            }
            // get_size_with_aspect_ratio
            Self::EdgeRange { shortest, longest } => {
                let (mut size, longest) = (f64::from(shortest), f64::from(longest));
                let mut exact = size;
                if long / short * size > longest {
                    exact = longest * short / long;
                    size = exact.round_ties_even();
                }
                if short == size {
                    (width.into(), height.into())
                } else if width < height {
                    (size as u64, (exact * h / w) as u64)
                } else {
                    ((exact * w / h) as u64, size as u64)
                }
            }
            // maskrcnn_benchmark's Resize.get_size
            Self::EdgeRangeRounded { shortest, longest } => {
                let (mut size, longest) = (f64::from(shortest), f64::from(longest));
                if long / short * size > longest {
                    size = (longest * short / long).round_ties_even();
                }
                if short == size {
                    (width.into(), height.into())
                } else if width < height {
                    (size as u64, (size * h / w) as u64)
                } else {
                    ((size * w / h) as u64, size as u64)
                }
            }
            // open_clip's ResizeKeepRatio
            Self::Covering { height, width } => {
                let ratio = (h / f64::from(height)).min(w / f64::from(width));
                rounded(w / ratio, h / ratio)
            }
            Self::Fitting { height, width } => {
                let ratio = (h / f64::from(height)).max(w / f64::from(width));
                rounded(w / ratio, h / ratio)
            }
            // get_image_size_for_max_height_width
            Self::Within {
                height: most_h,
                width: most_w,
            } => {
                let scale = (f64::from(most_h) / h).min(f64::from(most_w) / w);
                ((w * scale) as u64, (h * scale) as u64)
            }
        }
    }
}

/// Python's `round`: halves go to the even neighbour.
fn rounded(width: f64, height: f64) -> (u64, u64) {
    (
        width.round_ties_even() as u64,
        height.round_ties_even() as u64,
    )
}
