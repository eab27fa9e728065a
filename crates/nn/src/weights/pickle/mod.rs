//! A pickle machine that builds data and calls nothing.
//!
//! A pickle is a program for a small stack machine (<https://docs.python.org/3/library/pickletools.html>). Python's
//! machine imports and calls whatever the program names; this one knows a list of names ([`Global::meaning`]), for each of
//! which it does a fixed thing, and stops at any other. Values live in one arena and refer to each other by number, so a
//! hostile pickle can neither recurse while it is freed nor grow by more than a constant for each of its bytes.

mod globals;

pub use globals::Global;
use globals::{Meaning, dtype_named};

use super::tensor::Dtype;
use std::collections::HashMap;

/// The longest pickle that is read; those of checkpoints have a few hundred bytes a tensor.
pub const MAX_PICKLE: usize = 64 << 20;

/// The most values in one pickle, list entries included: some dozen bytes each.
const MAX_VALUES: usize = 1 << 22;

/// The longest part of a name.
const MAX_NAME: usize = 512;

/// A value; what does not fit a word is in the arena.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Ref(usize),
}

/// What a number in the arena stands for.
#[derive(Debug)]
pub enum Node {
    Str(String),
    Bytes(Vec<u8>),
    /// An integer of more than 64 bits.
    LargeInt,
    List(Vec<Value>),
    Tuple(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Global(Box<Global>),
    // boxed, because lists and texts are many
    Storage(Box<Storage>),
    Tensor(Box<Tensor>),
    Object(Box<Object>),
}

/// A run of numbers outside of the pickle.
#[derive(Clone, Debug)]
pub struct Storage {
    pub key: String,
    /// `None` for bytes whose type the tensor tells.
    pub dtype: Option<Dtype>,
    /// First number, if this is a part of the storage (old files).
    pub offset: usize,
    /// Numbers, or bytes without a type.
    pub count: usize,
}

/// A tensor of a storage.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub storage: Storage,
    pub dtype: Dtype,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// An instance of a class that is kept as data.
#[derive(Debug)]
pub struct Object {
    pub class: Global,
    /// A tuple, or none.
    pub arguments: Value,
    /// What the class restored itself from, or its entries if it is a class of dicts.
    pub state: Value,
}

/// What is wrong and where, for whoever knows the file's name.
pub type Reason = String;

/// What a pickle built.
pub struct Pickle {
    pub nodes: Vec<Node>,
    pub root: Value,
    /// Bytes up to and with the end of the program.
    pub len: usize,
}

impl Pickle {
    /// Runs a pickle that stands at the beginning of some bytes and has at most `most` of them.
    pub fn parse(bytes: &[u8], most: usize) -> Result<Self, Reason> {
        // a copy, because a mapped file may change while it is read, and checks must hold
        let bytes = bytes[..bytes.len().min(most)].to_vec();
        let mut machine = Machine {
            bytes: &bytes,
            at: 0,
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            values: 0,
        };
        let root = machine.run().map_err(|reason| {
            let at = machine.at;
            format!("pickle, byte {at}: {reason}")
        })?;
        Ok(Self {
            nodes: machine.nodes,
            root,
            len: machine.at,
        })
    }

    /// The node behind a value.
    pub fn node(&self, value: Value) -> Option<&Node> {
        match value {
            Value::Ref(at) => self.nodes.get(at),
            _ => None,
        }
    }

    pub fn str(&self, value: Value) -> Option<&str> {
        match self.node(value) {
            Some(Node::Str(s)) => Some(s),
            _ => None,
        }
    }

    /// The entries of a list or tuple.
    pub fn items(&self, value: Value) -> Option<&[Value]> {
        match self.node(value) {
            Some(Node::List(items) | Node::Tuple(items)) => Some(items),
            _ => None,
        }
    }

    pub fn dict(&self, value: Value) -> Option<&[(Value, Value)]> {
        match self.node(value) {
            Some(Node::Dict(items)) => Some(items),
            _ => None,
        }
    }

    /// The value of a key; of the last one, as in Python.
    pub fn get(&self, value: Value, key: &str) -> Option<Value> {
        let mut items = self.dict(value)?.iter().rev();
        items
            .find(|(k, _)| self.str(*k) == Some(key))
            .map(|&(_, v)| v)
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Value>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
    values: usize,
}

impl<'a> Machine<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Reason> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..count).ok_or_else(|| {
            let there = rest.len();
            format!("expected {count} more bytes, found {there}; cut short, or too long?")
        })?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Reason> {
        Ok(self.take(N)?.try_into().expect("as many"))
    }

    fn byte(&mut self) -> Result<u8, Reason> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<usize, Reason> {
        Ok(u16::from_le_bytes(self.array()?).into())
    }

    fn u32(&mut self) -> Result<usize, Reason> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    /// A length; one that does not fit the address space fits no file either.
    fn u64(&mut self) -> Result<usize, Reason> {
        Ok(usize::try_from(u64::from_le_bytes(self.array()?)).unwrap_or(usize::MAX))
    }

    fn text(&mut self, len: usize) -> Result<&'a str, Reason> {
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes).map_err(|e| format!("expected UTF-8, found {e}"))
    }

    fn line(&mut self) -> Result<&'a str, Reason> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&b| b == b'\n');
        let end = end.ok_or("expected a line, found none that ends")?;
        let line = self.text(end)?;
        self.at += 1;
        Ok(line.trim_end_matches('\r'))
    }

    /// Counts values that take memory.
    fn count(&mut self, values: usize) -> Result<(), Reason> {
        self.values += values;
        if self.values > MAX_VALUES {
            return Err(format!("expected at most {MAX_VALUES} values, found more"));
        }
        Ok(())
    }

    fn node(&mut self, node: Node) -> Result<Value, Reason> {
        self.count(1)?;
        self.nodes.push(node);
        Ok(Value::Ref(self.nodes.len() - 1))
    }

    fn push(&mut self, value: Value) -> Result<(), Reason> {
        self.count(1)?;
        self.stack.push(value);
        Ok(())
    }

    fn push_node(&mut self, node: Node) -> Result<(), Reason> {
        let value = self.node(node)?;
        self.push(value)
    }

    /// The top of the stack, above the last mark.
    fn pop(&mut self) -> Result<Value, Reason> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("expected a value on the stack, found none".into());
        }
        Ok(self.stack.pop().expect("above the floor"))
    }

    fn top(&mut self) -> Result<Value, Reason> {
        let value = self.pop()?;
        self.stack.push(value);
        Ok(value)
    }

    /// What is above the last mark, which goes with it.
    fn marked(&mut self) -> Result<Vec<Value>, Reason> {
        let mark = self.marks.pop().ok_or("expected a mark, found none")?;
        Ok(self.stack.split_off(mark))
    }

    fn pairs(items: &[Value]) -> Result<Vec<(Value, Value)>, Reason> {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err("expected keys with values, found a key without one".into());
        }
        Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
    }

    fn run(&mut self) -> Result<Value, Reason> {
        loop {
            let op = self.byte()?;
            match op {
                // PROTO, FRAME
                0x80 => {
                    let version = self.byte()?;
                    if version > 5 {
                        return Err(format!("expected a protocol up to 5, found {version}"));
                    }
                }
                0x95 => {
                    self.take(8)?;
                }
                b'.' => return self.pop(),

                // the stack
                b'(' => {
                    self.count(1)?;
                    self.marks.push(self.stack.len());
                }
                // POP drops a mark where no value is above it
                b'0' if self.marks.last() == Some(&self.stack.len()) => {
                    self.marks.pop();
                }
                b'0' => {
                    self.pop()?;
                }
                b'1' => {
                    self.marked()?;
                }
                b'2' => {
                    let top = self.top()?;
                    self.push(top)?;
                }

                // the memo
                b'q' => self.put_byte()?,
                b'r' => {
                    let key = self.u32()?;
                    self.put(key as u64)?;
                }
                b'p' => {
                    let key = self.decimal()?;
                    self.put(key)?;
                }
                0x94 => self.put(self.memo.len() as u64)?,
                b'h' => {
                    let key = self.byte()?;
                    self.get(key.into())?;
                }
                b'j' => {
                    let key = self.u32()?;
                    self.get(key as u64)?;
                }
                b'g' => {
                    let key = self.decimal()?;
                    self.get(key)?;
                }

                // numbers
                b'N' => self.push(Value::None)?,
                0x88 => self.push(Value::Bool(true))?,
                0x89 => self.push(Value::Bool(false))?,
                b'K' => {
                    let n = self.byte()?;
                    self.push(Value::Int(n.into()))?;
                }
                b'M' => {
                    let n = self.u16()?;
                    self.push(Value::Int(n as i64))?;
                }
                b'J' => {
                    let n = i32::from_le_bytes(self.array()?);
                    self.push(Value::Int(n.into()))?;
                }
                0x8a => {
                    let len = self.byte()?;
                    self.long(len.into())?;
                }
                0x8b => {
                    let len = self.u32()?;
                    self.long(len)?;
                }
                b'I' | b'L' => {
                    let line = self.line()?;
                    let value = match line {
                        "00" if op == b'I' => Value::Bool(false),
                        "01" if op == b'I' => Value::Bool(true),
                        number => match number.trim_end_matches('L').parse() {
                            Ok(number) => Value::Int(number),
                            Err(_) => return Err(format!("expected an integer, found {line:?}")),
                        },
                    };
                    self.push(value)?;
                }
                b'G' => {
                    let x = f64::from_be_bytes(self.array()?);
                    self.push(Value::Float(x))?;
                }
                b'F' => {
                    let line = self.line()?;
                    let x = line.parse();
                    let x = x.map_err(|_| format!("expected a number, found {line:?}"))?;
                    self.push(Value::Float(x))?;
                }

                // text and bytes
                b'X' => {
                    let len = self.u32()?;
                    self.push_text(len)?;
                }
                0x8c => {
                    let len = self.byte()?;
                    self.push_text(len.into())?;
                }
                0x8d => {
                    let len = self.u64()?;
                    self.push_text(len)?;
                }
                b'B' => {
                    let len = self.u32()?;
                    self.push_bytes(len)?;
                }
                b'C' => {
                    let len = self.byte()?;
                    self.push_bytes(len.into())?;
                }
                0x8e | 0x96 => {
                    let len = self.u64()?;
                    self.push_bytes(len)?;
                }
                // Python 2's strings, which may be either
                b'T' => {
                    let len = self.u32()?;
                    self.push_python_2(len)?;
                }
                b'U' => {
                    let len = self.byte()?;
                    self.push_python_2(len.into())?;
                }
                b'S' | b'V' => {
                    let line = self.line()?;
                    let line = if op == b'S' {
                        line.trim_matches(['\'', '"'])
                    } else {
                        line
                    };
                    self.push_node(Node::Str(line.to_owned()))?;
                }

                // containers
                b']' => self.push_node(Node::List(Vec::new()))?,
                b')' => self.push_node(Node::Tuple(Vec::new()))?,
                b'}' => self.push_node(Node::Dict(Vec::new()))?,
                0x8f => self.push_node(Node::List(Vec::new()))?,
                b'l' | 0x91 => {
                    let items = self.marked()?;
                    self.push_node(Node::List(items))?;
                }
                b't' => {
                    let items = self.marked()?;
                    self.push_node(Node::Tuple(items))?;
                }
                b'd' => {
                    let items = self.marked()?;
                    self.push_node(Node::Dict(Self::pairs(&items)?))?;
                }
                0x85..=0x87 => {
                    let mut items = Vec::with_capacity(3);
                    for _ in 0..=op - 0x85 {
                        items.push(self.pop()?);
                    }
                    items.reverse();
                    self.push_node(Node::Tuple(items))?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(&[item])?;
                }
                b'e' | 0x90 => {
                    let items = self.marked()?;
                    self.append(&items)?;
                }
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.set(&[(key, value)])?;
                }
                b'u' => {
                    let items = self.marked()?;
                    self.set(&Self::pairs(&items)?)?;
                }

                // names and calls
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.push_global(module.to_owned(), name.to_owned())?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let [module, name] = [module, name].map(|v| self.str(v).map(str::to_owned));
                    let (Some(module), Some(name)) = (module, name) else {
                        return Err("expected a module and a name, found other values".into());
                    };
                    self.push_global(module, name)?;
                }
                b'R' | 0x81 => {
                    let (arguments, callee) = (self.pop()?, self.pop()?);
                    let made = self.call(callee, arguments)?;
                    self.push(made)?;
                }
                0x92 => {
                    let (_, arguments, callee) = (self.pop()?, self.pop()?, self.pop()?);
                    let made = self.call(callee, arguments)?;
                    self.push(made)?;
                }
                b'o' => {
                    let mut items = self.marked()?;
                    if items.is_empty() {
                        return Err("expected a class, found none".into());
                    }
                    let callee = items.remove(0);
                    let arguments = self.node(Node::Tuple(items))?;
                    let made = self.call(callee, arguments)?;
                    self.push(made)?;
                }
                b'i' => {
                    let (module, name) = (self.line()?, self.line()?);
                    let items = self.marked()?;
                    let arguments = self.node(Node::Tuple(items))?;
                    self.push_global(module.to_owned(), name.to_owned())?;
                    let callee = self.pop()?;
                    let made = self.call(callee, arguments)?;
                    self.push(made)?;
                }
                b'b' => {
                    let state = self.pop()?;
                    let object = self.top()?;
                    // attributes of dicts and tensors (`_metadata`, hooks) say nothing that is needed
                    if let Some(Node::Object(object)) = self.node_mut(object) {
                        object.state = state;
                    }
                }
                b'Q' => {
                    let id = self.pop()?;
                    let storage = self.storage(id)?;
                    self.push(storage)?;
                }

                0x82..=0x84 => return Err("expected names, found an extension code".into()),
                0x97 | 0x98 => return Err("expected bytes in the file, found a buffer".into()),
                b'P' => return Err("expected a storage, found a persistent id as text".into()),
                other => return Err(format!("expected a pickle, found code {other:#04x}")),
            }
        }
    }

    fn decimal(&mut self) -> Result<u64, Reason> {
        let line = self.line()?;
        line.parse()
            .map_err(|_| format!("expected a number, found {line:?}"))
    }

    fn put_byte(&mut self) -> Result<(), Reason> {
        let key = self.byte()?;
        self.put(key.into())
    }

    fn put(&mut self, key: u64) -> Result<(), Reason> {
        self.count(1)?;
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn get(&mut self, key: u64) -> Result<(), Reason> {
        let found = self.memo.get(&key).copied();
        let value = found.ok_or_else(|| format!("expected a value in memo {key}, found none"))?;
        self.push(value)
    }

    /// A little-endian integer of any length.
    fn long(&mut self, len: usize) -> Result<(), Reason> {
        let bytes = self.take(len)?;
        if len > 8 {
            return self.push_node(Node::LargeInt);
        }
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut all = [if negative { 0xff } else { 0 }; 8];
        all[..len].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(all)))
    }

    fn push_text(&mut self, len: usize) -> Result<(), Reason> {
        // Python lets lone surrogates through; names have none
        let text = String::from_utf8_lossy(self.take(len)?).into_owned();
        self.push_node(Node::Str(text))
    }

    fn push_bytes(&mut self, len: usize) -> Result<(), Reason> {
        let bytes = self.take(len)?.to_vec();
        self.push_node(Node::Bytes(bytes))
    }

    fn push_python_2(&mut self, len: usize) -> Result<(), Reason> {
        let bytes = self.take(len)?.to_vec();
        self.push_node(match String::from_utf8(bytes) {
            Ok(text) => Node::Str(text),
            Err(e) => Node::Bytes(e.into_bytes()),
        })
    }

    fn push_global(&mut self, module: String, name: String) -> Result<(), Reason> {
        let global = Global { module, name };
        if global.module.len() > MAX_NAME || global.name.len() > MAX_NAME {
            return Err(format!(
                "expected names of at most {MAX_NAME} bytes, found a longer one"
            ));
        }
        if global.meaning().is_none() {
            let path: String = global.path().chars().take(200).collect();
            return Err(format!(
                "it asks for {path:?}, which is not among what a checkpoint may name; nothing was run. If the file is to \
                 be trusted, store its tensors as safetensors"
            ));
        }
        self.push_node(Node::Global(Box::new(global)))
    }

    fn node_at(&self, value: Value) -> Option<&Node> {
        match value {
            Value::Ref(at) => self.nodes.get(at),
            _ => None,
        }
    }

    fn node_mut(&mut self, value: Value) -> Option<&mut Node> {
        match value {
            Value::Ref(at) => self.nodes.get_mut(at),
            _ => None,
        }
    }

    fn str(&self, value: Value) -> Option<&str> {
        match self.node_at(value) {
            Some(Node::Str(text)) => Some(text),
            _ => None,
        }
    }

    fn items(&self, value: Value) -> Option<&[Value]> {
        match self.node_at(value) {
            Some(Node::List(items) | Node::Tuple(items)) => Some(items),
            _ => None,
        }
    }

    /// Items for the list on top of the stack; those of a class of lists are dropped.
    fn append(&mut self, items: &[Value]) -> Result<(), Reason> {
        let list = self.top()?;
        self.count(items.len())?;
        match self.node_mut(list) {
            Some(Node::List(list)) => list.extend_from_slice(items),
            Some(Node::Object(_)) => {}
            _ => return Err("expected a list to append to, found another value".into()),
        }
        Ok(())
    }

    /// Entries for the dict on top of the stack, or for an instance of a class of dicts.
    fn set(&mut self, pairs: &[(Value, Value)]) -> Result<(), Reason> {
        let dict = self.top()?;
        self.count(2 * pairs.len() + 1)?;
        let new = Value::Ref(self.nodes.len());
        let into = match self.node_mut(dict) {
            Some(Node::Dict(_)) => dict,
            Some(Node::Object(object)) => match object.state {
                Value::None => {
                    object.state = new;
                    self.nodes.push(Node::Dict(Vec::new()));
                    new
                }
                state => state,
            },
            _ => return Err("expected a dict to add to, found another value".into()),
        };
        if let Some(Node::Dict(entries)) = self.node_mut(into) {
            entries.extend_from_slice(pairs);
        }
        Ok(())
    }

    /// What a call gives, of which none is one.
    fn call(&mut self, callee: Value, arguments: Value) -> Result<Value, Reason> {
        let Some(Node::Global(global)) = self.node_at(callee) else {
            return Err("expected a name to call, found another value".into());
        };
        let global = global.clone();
        let Some(Node::Tuple(arguments)) = self.node_at(arguments) else {
            return Err(format!("{}: expected a tuple of arguments", global.path()));
        };
        let arguments = arguments.clone();
        self.count(arguments.len())?;
        let meaning = global.meaning().expect("checked when it was pushed");
        let wrong = |what: &str| format!("{}: expected {what}, found other values", global.path());
        let first = arguments.first().copied();
        match meaning {
            Meaning::Dict => {
                let Some(first) = first else {
                    return self.node(Node::Dict(Vec::new()));
                };
                let pair = |&item: &Value| match self.items(item) {
                    Some(&[key, value]) => Some((key, value)),
                    _ => None,
                };
                let pairs = match self.node_at(first) {
                    Some(Node::Dict(pairs)) => Some(pairs.clone()),
                    _ => self
                        .items(first)
                        .and_then(|items| items.iter().map(pair).collect()),
                };
                let pairs: Vec<_> = pairs.ok_or_else(|| wrong("pairs"))?;
                self.count(2 * pairs.len())?;
                self.node(Node::Dict(pairs))
            }
            Meaning::DefaultDict => self.node(Node::Dict(Vec::new())),
            Meaning::First => Ok(first.unwrap_or(Value::None)),
            Meaning::Tuple | Meaning::List => {
                let items = match first {
                    None => Vec::new(),
                    Some(first) => self.items(first).ok_or_else(|| wrong("a list"))?.to_vec(),
                };
                self.count(items.len())?;
                self.node(match meaning {
                    Meaning::Tuple => Node::Tuple(items),
                    _ => Node::List(items),
                })
            }
            Meaning::Tensor => {
                let tensor = self.tensor(&arguments);
                let tensor = tensor.map_err(|e| format!("{}: {e}", global.path()))?;
                self.count(8)?;
                self.node(Node::Tensor(Box::new(tensor)))
            }
            Meaning::FromType => {
                let &[function, _, inner, ..] = arguments.as_slice() else {
                    return Err(wrong("a function and its arguments"));
                };
                // once: a function that calls a function that calls … is no checkpoint
                let direct = match self.node_at(function) {
                    Some(Node::Global(inner)) => inner.meaning() != Some(Meaning::FromType),
                    _ => false,
                };
                if !direct {
                    return Err(wrong("a function that makes a tensor"));
                }
                self.call(function, inner)
            }
            Meaning::Encode => {
                let bytes = match first.map(|v| (v, self.node_at(v))) {
                    None => Vec::new(),
                    Some((_, Some(Node::Bytes(bytes)))) => bytes.clone(),
                    Some((_, Some(Node::Str(text)))) => {
                        let letters = text.chars().map(|c| u8::try_from(u32::from(c)));
                        let bytes: Result<_, _> = letters.collect();
                        bytes.map_err(|_| wrong("letters up to 255"))?
                    }
                    _ => return Err(wrong("bytes")),
                };
                // a copy of text that may stand in the memo: it must not be made for a few bytes of the pickle each
                self.count(bytes.len() / 16)?;
                self.node(Node::Bytes(bytes))
            }
            Meaning::NumpyScalar => Ok(self.numpy_scalar(&arguments).unwrap_or(Value::None)),
            Meaning::Reconstruct => {
                let class = match first.and_then(|v| self.node_at(v)) {
                    Some(Node::Global(class)) => (**class).clone(),
                    _ => return Err(wrong("a class")),
                };
                match class.meaning() {
                    Some(Meaning::Dict | Meaning::DefaultDict) => self.node(Node::Dict(Vec::new())),
                    Some(Meaning::List) => self.node(Node::List(Vec::new())),
                    _ => self.object(class, Value::None),
                }
            }
            Meaning::Dtype | Meaning::Inert => {
                let arguments = match arguments.is_empty() {
                    true => Value::None,
                    false => self.node(Node::Tuple(arguments))?,
                };
                self.object(*global, arguments)
            }
        }
    }

    fn object(&mut self, class: Global, arguments: Value) -> Result<Value, Reason> {
        self.count(8)?;
        self.node(Node::Object(Box::new(Object {
            class,
            arguments,
            state: Value::None,
        })))
    }

    fn usize(value: Value) -> Option<usize> {
        match value {
            Value::Int(n) => usize::try_from(n).ok(),
            _ => None,
        }
    }

    fn sizes(&self, value: Value) -> Option<Vec<usize>> {
        let items = self.items(value)?;
        if items.len() > super::tensor::MAX_RANK {
            return None;
        }
        items.iter().map(|&item| Self::usize(item)).collect()
    }

    /// `(storage, offset, shape, strides, …)`, of which version 3 has the type of the numbers behind.
    fn tensor(&self, arguments: &[Value]) -> Result<Tensor, Reason> {
        let &[storage, offset, shape, strides, ..] = arguments else {
            return Err("expected a storage, an offset, a shape and strides".into());
        };
        let Some(Node::Storage(storage)) = self.node_at(storage) else {
            return Err("expected a storage, found another value".into());
        };
        let offset = Self::usize(offset).ok_or("expected an offset from 0")?;
        let shape = self
            .sizes(shape)
            .ok_or("expected a shape of integers from 0")?;
        let strides = self
            .sizes(strides)
            .ok_or("expected strides of integers from 0")?;
        let stated = arguments[4..].iter().find_map(|&v| match self.node_at(v) {
            Some(Node::Global(global)) if global.module == "torch" => dtype_named(&global.name),
            _ => None,
        });
        Ok(Tensor {
            dtype: stated.or(storage.dtype).unwrap_or(Dtype::U8),
            storage: (**storage).clone(),
            offset,
            shape,
            strides,
        })
    }

    /// `("storage", class, key, device, numbers[, (view, offset, numbers)])`.
    fn storage(&mut self, id: Value) -> Result<Value, Reason> {
        const EXPECTED: &str = "expected the id of a storage, found something else";
        let items = self.items(id).ok_or(EXPECTED)?;
        let &[kind, class, key, _, count, ..] = items else {
            return Err(EXPECTED.into());
        };
        let Some(Node::Global(class)) = self.node_at(class) else {
            return Err(EXPECTED.into());
        };
        let dtype = class.storage();
        let dtype = dtype.ok_or_else(|| format!("{}: expected a storage class", class.path()))?;
        let key = match (key, self.str(key)) {
            (_, Some(key)) => key.to_owned(),
            (Value::Int(key), _) => key.to_string(),
            _ => return Err(EXPECTED.into()),
        };
        if self.str(kind) != Some("storage") || key.len() > MAX_NAME {
            return Err(EXPECTED.into());
        }
        let mut count = Self::usize(count).ok_or("expected the numbers of a storage")?;
        let mut offset = 0;
        if let Some(&view) = items.get(5)
            && let Some(&[_, start, len]) = self.items(view)
        {
            let (Some(start), Some(len)) = (Self::usize(start), Self::usize(len)) else {
                return Err("expected offset and length of a part of a storage".into());
            };
            if start.checked_add(len).is_none_or(|end| end > count) {
                return Err(format!(
                    "expected a part of {count} numbers, found {len} from {start}"
                ));
            }
            (offset, count) = (start, len);
        }
        self.count(8)?;
        self.node(Node::Storage(Box::new(Storage {
            key,
            dtype,
            offset,
            count,
        })))
    }

    /// `(dtype, bytes)`; the type is `numpy.dtype("f8", …)`.
    fn numpy_scalar(&self, arguments: &[Value]) -> Option<Value> {
        let &[dtype, bytes, ..] = arguments else {
            return None;
        };
        let (Some(Node::Object(dtype)), Some(Node::Bytes(bytes))) =
            (self.node_at(dtype), self.node_at(bytes))
        else {
            return None;
        };
        let kind = self
            .items(dtype.arguments)
            .and_then(|items| self.str(*items.first()?));
        let kind = kind?;
        let bytes = bytes.as_slice();
        Some(match (kind, bytes.len()) {
            ("f8", 8) => Value::Float(f64::from_le_bytes(bytes.try_into().ok()?)),
            ("f4", 4) => Value::Float(f32::from_le_bytes(bytes.try_into().ok()?).into()),
            ("i8", 8) => Value::Int(i64::from_le_bytes(bytes.try_into().ok()?)),
            ("i4", 4) => Value::Int(i32::from_le_bytes(bytes.try_into().ok()?).into()),
            ("b1", 1) => Value::Bool(bytes[0] != 0),
            _ => return None,
        })
    }
}
