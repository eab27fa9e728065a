//! The names that a pickle may ask for, and what is done about each.

use crate::weights::tensor::Dtype;

/// A name that a pickle asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Global {
    pub module: String,
    pub name: String,
}

/// What the machine does about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Makes an empty dict, or one of pairs or of a dict.
    Dict,
    /// `defaultdict`, whose first argument is what makes its entries.
    DefaultDict,
    /// Gives its first argument.
    First,
    /// `torch.Size`, `tuple`: a tuple of its first argument.
    Tuple,
    /// `list`, `set`: a list of its first argument.
    List,
    /// `_rebuild_tensor`, `_rebuild_tensor_v2` and `_rebuild_tensor_v3`: the type may stand behind.
    Tensor,
    /// `_rebuild_from_type_v2`: calls its first argument with its third.
    FromType,
    /// Text whose letters are bytes.
    Encode,
    /// A number of NumPy: its type and its bytes.
    NumpyScalar,
    /// `copyreg._reconstructor`: an instance of its first argument.
    Reconstruct,
    /// A type of numbers.
    Dtype,
    /// A class whose instances are kept as data.
    Inert,
}

/// Modules whose classes turn up beside the tensors of published checkpoints; their instances are kept as data.
const INERT_MODULES: &[&str] = &[
    "__torch__",
    "torch.optim",
    "torch.nn",
    "torch.amp",
    "torch.cuda.amp",
    "torchvision",
    "pytorch_lightning",
    "lightning",
    "lightning_fabric",
    "omegaconf",
    "yacs",
    "ruamel",
    "ruamel_yaml",
    "easydict",
    "addict",
    "ml_collections",
    "timm",
    "open_clip",
    "fairseq",
];

/// Names outside of these modules.
const INERT: &[(&str, &str)] = &[
    ("argparse", "Namespace"),
    ("types", "SimpleNamespace"),
    ("datetime", "datetime"),
    ("datetime", "date"),
    ("datetime", "timedelta"),
    ("datetime", "timezone"),
    ("pathlib", "Path"),
    ("pathlib", "PosixPath"),
    ("pathlib", "WindowsPath"),
    ("pathlib", "PurePosixPath"),
    ("pathlib", "PureWindowsPath"),
    ("pathlib._local", "PosixPath"),
    ("uuid", "UUID"),
    ("decimal", "Decimal"),
    ("fractions", "Fraction"),
    ("typing", "Any"),
    ("torch", "device"),
    ("torch", "Tensor"),
    ("torch", "Generator"),
    ("torch.nn.parameter", "Parameter"),
    ("torch._utils", "_rebuild_qtensor"),
    ("torch._utils", "_rebuild_sparse_tensor"),
    ("torch._utils", "_rebuild_device_tensor_from_numpy"),
    ("torch._utils", "_rebuild_meta_tensor_no_storage"),
    ("torch.serialization", "_get_layout"),
    ("torch", "per_tensor_affine"),
    ("torch", "per_channel_affine"),
    ("torch", "strided"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.random", "RandomState"),
];

const BUILTINS: [&str; 2] = ["builtins", "__builtin__"];

/// Types of numbers by their names in PyTorch: as attribute of `torch`, as first part of a storage class.
const DTYPES: [(&str, &str, Dtype); 16] = [
    ("float64", "Double", Dtype::F64),
    ("float32", "Float", Dtype::F32),
    ("float16", "Half", Dtype::F16),
    ("bfloat16", "BFloat16", Dtype::Bf16),
    ("int64", "Long", Dtype::I64),
    ("int32", "Int", Dtype::I32),
    ("int16", "Short", Dtype::I16),
    ("int8", "Char", Dtype::I8),
    ("uint8", "Byte", Dtype::U8),
    ("bool", "Bool", Dtype::Bool),
    ("complex64", "ComplexFloat", Dtype::C64),
    ("uint64", "", Dtype::U64),
    ("uint32", "", Dtype::U32),
    ("uint16", "", Dtype::U16),
    ("float8_e4m3fn", "", Dtype::F8E4M3),
    ("float8_e5m2", "", Dtype::F8E5M2),
];

impl Global {
    /// As in Python, `os.system`.
    pub fn path(&self) -> String {
        format!("{}.{}", self.module, self.name)
    }

    /// What is done about the name, if it is on the list.
    pub(super) fn meaning(&self) -> Option<Meaning> {
        let (module, name) = (self.module.as_str(), self.name.as_str());
        Some(match (module, name) {
            ("collections", "OrderedDict" | "Counter") => Meaning::Dict,
            ("collections", "defaultdict") => Meaning::DefaultDict,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3") => {
                Meaning::Tensor
            }
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                Meaning::First
            }
            ("torch._tensor", "_rebuild_from_type_v2") => Meaning::FromType,
            ("torch", "Size") => Meaning::Tuple,
            (
                "torch.jit._pickle",
                "restore_type_tag" | "build_intlist" | "build_boollist" | "build_doublelist"
                | "build_tensorlist",
            ) => Meaning::First,
            ("_codecs", "encode") => Meaning::Encode,
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Meaning::NumpyScalar,
            ("copyreg" | "copy_reg", "_reconstructor") => Meaning::Reconstruct,
            ("torch", _) if dtype_named(name).is_some() => Meaning::Dtype,
            _ if self.storage().is_some() => Meaning::Inert,
            _ if BUILTINS.contains(&module) => match name {
                "dict" => Meaning::Dict,
                "list" | "set" | "frozenset" => Meaning::List,
                "tuple" => Meaning::Tuple,
                "int" | "float" | "bool" | "str" | "long" | "unicode" => Meaning::First,
                "bytes" | "bytearray" => Meaning::Encode,
                "object" | "complex" | "slice" | "range" => Meaning::Inert,
                _ => return None,
            },
            _ if INERT.contains(&(module, name)) => Meaning::Inert,
            // of these modules nothing would be called even if it were no class; a name with dots leads out of them
            _ if !name.contains('.') && in_inert_module(module) => Meaning::Inert,
            _ => return None,
        })
    }

    /// The type of numbers of a storage class; `Some(None)` for bytes.
    pub(super) fn storage(&self) -> Option<Option<Dtype>> {
        let known = ["torch", "torch.cuda", "torch.storage"];
        if !known.contains(&self.module.as_str()) {
            return None;
        }
        match self.name.as_str() {
            "UntypedStorage" => return Some(None),
            "TypedStorage" | "_LegacyStorage" | "_TypedStorage" | "_UntypedStorage" => {
                return Some(None);
            }
            _ => {}
        }
        let class = self.name.strip_suffix("Storage")?;
        let found = DTYPES
            .iter()
            .find(|row| !class.is_empty() && row.1 == class);
        found.map(|row| Some(row.2))
    }
}

fn in_inert_module(module: &str) -> bool {
    INERT_MODULES.iter().any(|known| {
        let rest = module.strip_prefix(known);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

pub(super) fn dtype_named(name: &str) -> Option<Dtype> {
    DTYPES.iter().find(|row| row.0 == name).map(|row| row.2)
}
