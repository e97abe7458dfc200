//! The part of Python's pickle format that files of tensors use, read without running anything.
//!
//! A pickle is a program. Known opcodes build plain values and tensors; a call of anything but what
//! makes tensors is refused by its name. Values lie in one list and name each other by number, so that
//! neither depth nor sharing can cost more than the bytes that are there.
//!
//! Format: <https://github.com/python/cpython/blob/main/Lib/pickletools.py>; tensors:
//! `torch/_utils.py`, `_rebuild_tensor_v2`.

use crate::interop::floats::FloatType;

/// Values in one file.
const MOST_NODES: usize = 1 << 22;
/// Names of types and devices, which are kept as text.
const PLAIN: [&str; 3] = ["torch", "numpy", "builtins"];

/// A tensor as the pickle describes it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TensorAt {
    /// The name of its storage in the archive.
    pub(super) storage: String,
    /// What the storage holds; an error of what cannot be read.
    pub(super) numbers: Result<FloatType, String>,
    /// Values of the storage.
    pub(super) count: u64,
    /// The place of its first value.
    pub(super) offset: u64,
    pub(super) shape: Vec<u64>,
    pub(super) stride: Vec<u64>,
}

/// A value, by the numbers of its parts.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Tuple(Vec<usize>),
    List(Vec<usize>),
    Dict(Vec<(usize, usize)>),
    Global(String),
    Persistent(usize),
    Tensor(TensorAt),
}

/// The values of a pickle, and which of them it is.
#[derive(Debug)]
pub(super) struct Pickle {
    pub(super) nodes: Vec<Node>,
    pub(super) root: usize,
}

/// Reads a whole pickle.
///
/// # Errors
/// What is wrong with it, as the end of a sentence about the file.
pub(super) fn read(bytes: &[u8]) -> Result<Pickle, String> {
    let mut machine = Machine {
        bytes,
        at: 0,
        nodes: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: std::collections::HashMap::new(),
    };
    while !machine.step()? {}
    let root = machine.pop()?;
    Ok(Pickle {
        nodes: machine.nodes,
        root,
    })
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<usize>,
    marks: Vec<usize>,
    memo: std::collections::HashMap<u64, usize>,
}

fn damaged(what: &str) -> String {
    format!("is a damaged pickle ({what})")
}

impl<'a> Machine<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        self.at = self.at.saturating_add(count);
        taken.ok_or_else(|| damaged("it ends early"))
    }

    /// A number of up to eight little-endian bytes.
    fn number(&mut self, count: usize) -> Result<u64, String> {
        let bytes = self.take(count)?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |n, &byte| (n << 8) | u64::from(byte)))
    }

    fn text(&mut self, width: usize) -> Result<String, String> {
        let length = usize::try_from(self.number(width)?).map_err(|_| damaged("a length"))?;
        let bytes = self.take(length)?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    /// A text up to a line end.
    fn line(&mut self) -> Result<String, String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest
            .iter()
            .position(|&b| b == b'\n')
            .ok_or_else(|| damaged("it ends early"))?;
        self.at += length + 1;
        Ok(String::from_utf8_lossy(&rest[..length]).into_owned())
    }

    fn push(&mut self, node: Node) -> Result<(), String> {
        if self.nodes.len() >= MOST_NODES {
            return Err("is a pickle of more values than tensors have names".to_owned());
        }
        self.nodes.push(node);
        self.stack.push(self.nodes.len() - 1);
        Ok(())
    }

    fn pop(&mut self) -> Result<usize, String> {
        if self
            .marks
            .last()
            .is_some_and(|&mark| mark >= self.stack.len())
        {
            return Err(damaged("its stack is empty"));
        }
        self.stack
            .pop()
            .ok_or_else(|| damaged("its stack is empty"))
    }

    fn top(&self) -> Result<usize, String> {
        self.stack
            .last()
            .copied()
            .ok_or_else(|| damaged("its stack is empty"))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<usize>, String> {
        let mark = self.marks.pop().ok_or_else(|| damaged("it has no mark"))?;
        if mark > self.stack.len() {
            return Err(damaged("its stack is empty"));
        }
        Ok(self.stack.split_off(mark))
    }

    fn tuple(&mut self, count: usize) -> Result<(), String> {
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Node::Tuple(items))
    }

    fn append(&mut self, items: Vec<usize>) -> Result<(), String> {
        let top = self.top()?;
        match &mut self.nodes[top] {
            Node::List(list) => list.extend(items),
            _ => return Err(damaged("it appends to no list")),
        }
        Ok(())
    }

    fn set(&mut self, items: &[usize]) -> Result<(), String> {
        let top = self.top()?;
        match &mut self.nodes[top] {
            Node::Dict(dict) => dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
            _ => return Err(damaged("it sets an item of no dictionary")),
        }
        Ok(())
    }

    fn remember(&mut self, key: u64) -> Result<(), String> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Result<(), String> {
        let node = self.memo.get(&key).copied();
        self.stack
            .push(node.ok_or_else(|| damaged("it recalls what is not there"))?);
        Ok(())
    }

    /// One opcode; whether it was the last.
    fn step(&mut self) -> Result<bool, String> {
        match self.take(1)?[0] {
            0x80 => _ = self.take(1)?,
            0x95 => _ = self.take(8)?,
            b'.' => return Ok(true),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => _ = self.pop()?,
            b'1' => _ = self.pop_to_mark()?,
            b'N' => self.push(Node::None)?,
            0x88 => self.push(Node::Bool(true))?,
            0x89 => self.push(Node::Bool(false))?,
            b'J' => {
                let number = self.number(4)? as u32;
                self.push(Node::Int(i64::from(number.cast_signed())))?;
            }
            b'K' => {
                let number = self.number(1)?;
                self.push(Node::Int(number.cast_signed()))?;
            }
            b'M' => {
                let number = self.number(2)?;
                self.push(Node::Int(number.cast_signed()))?;
            }
            0x8a => {
                let width = self.number(1)? as usize;
                if width > 8 {
                    return Err(damaged("a number of more than 64 bits"));
                }
                let number = self.number(width)?;
                let empty = 64 - 8 * width as u32;
                let signed = match empty {
                    64 => 0,
                    empty => (number << empty).cast_signed() >> empty,
                };
                self.push(Node::Int(signed))?;
            }
            b'G' => {
                let bits = self.number(8)?.swap_bytes();
                self.push(Node::Float(f64::from_bits(bits)))?;
            }
            b'X' | b'T' | b'B' => {
                let text = self.text(4)?;
                self.push(Node::Text(text))?;
            }
            0x8c | b'U' | b'C' => {
                let text = self.text(1)?;
                self.push(Node::Text(text))?;
            }
            0x8d | 0x8e => {
                let text = self.text(8)?;
                self.push(Node::Text(text))?;
            }
            b')' => self.push(Node::Tuple(Vec::new()))?,
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Tuple(items))?;
            }
            b']' => self.push(Node::List(Vec::new()))?,
            b'l' => {
                let items = self.pop_to_mark()?;
                self.push(Node::List(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b'}' => self.push(Node::Dict(Vec::new()))?,
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Dict(Vec::new()))?;
                self.set(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set(&items)?;
            }
            b'q' => {
                let key = self.number(1)?;
                self.remember(key)?;
            }
            b'r' => {
                let key = self.number(4)?;
                self.remember(key)?;
            }
            0x94 => self.remember(self.memo.len() as u64)?,
            b'h' => {
                let key = self.number(1)?;
                self.recall(key)?;
            }
            b'j' => {
                let key = self.number(4)?;
                self.recall(key)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Node::Global(format!("{module}.{name}")))?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (&self.nodes[module], &self.nodes[name]) {
                    (Node::Text(module), Node::Text(name)) => {
                        let whole = format!("{module}.{name}");
                        self.push(Node::Global(whole))?;
                    }
                    _ => return Err(damaged("a name that is no text")),
                }
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Node::Persistent(id))?;
            }
            b'R' | 0x81 => {
                let (args, callable) = (self.pop()?, self.pop()?);
                self.call(callable, args)?;
            }
            b'b' => {
                // The attributes of a dictionary of tensors: the versions of its modules.
                self.pop()?;
                let top = self.top()?;
                if !matches!(self.nodes[top], Node::Dict(_)) {
                    return Err(
                        "is a pickle of objects, not of tensors alone: it is not read".to_owned(),
                    );
                }
            }
            other => {
                return Err(format!(
                    "is a pickle that does more than hold tensors (opcode {other:#04x}): it is not read"
                ));
            }
        }
        Ok(false)
    }

    fn args(&self, of: usize) -> Vec<usize> {
        match &self.nodes[of] {
            Node::Tuple(items) => items.clone(),
            _ => Vec::new(),
        }
    }

    /// What a call makes, of the few that make plain values and tensors.
    fn call(&mut self, callable: usize, args: usize) -> Result<(), String> {
        let Node::Global(name) = self.nodes[callable].clone() else {
            return Err(damaged("it calls what has no name"));
        };
        let items = self.args(args);
        match name.as_str() {
            "collections.OrderedDict" | "builtins.dict" if items.is_empty() => {
                self.push(Node::Dict(Vec::new()))
            }
            "torch.Size" | "builtins.tuple" if items.len() == 1 => {
                self.stack.push(items[0]);
                Ok(())
            }
            "torch.device" => self.push(Node::None),
            "torch._utils._rebuild_tensor_v2" => {
                let tensor = self.tensor(&items)?;
                self.push(Node::Tensor(tensor))
            }
            "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state"
                if !items.is_empty() && matches!(self.nodes[items[0]], Node::Tensor(_)) =>
            {
                self.stack.push(items[0]);
                Ok(())
            }
            other => Err(format!(
                "is a pickle that does more than hold tensors (it calls {}): it is not read, and nothing was run",
                other.escape_debug()
            )),
        }
    }

    fn int(&self, node: usize) -> Option<u64> {
        match self.nodes[node] {
            Node::Int(n) => u64::try_from(n).ok(),
            _ => None,
        }
    }

    fn ints(&self, node: usize) -> Option<Vec<u64>> {
        self.args(node).into_iter().map(|n| self.int(n)).collect()
    }

    /// The arguments (storage, offset, size, stride, …) of a tensor.
    fn tensor(&self, items: &[usize]) -> Result<TensorAt, String> {
        let wrong = || damaged("a tensor without its storage");
        let &[storage, offset, size, stride, ..] = items else {
            return Err(wrong());
        };
        let Node::Persistent(id) = self.nodes[storage] else {
            return Err(wrong());
        };
        // ("storage", type, key, device, number of values)
        let &[_, kind, key, _, count, ..] = self.args(id).as_slice() else {
            return Err(wrong());
        };
        let (Node::Global(kind), Node::Text(key)) = (&self.nodes[kind], &self.nodes[key]) else {
            return Err(wrong());
        };
        let numbers = match kind.strip_prefix("torch.").unwrap_or(kind) {
            "FloatStorage" => Ok(FloatType::F32),
            "DoubleStorage" => Ok(FloatType::F64),
            "HalfStorage" => Ok(FloatType::F16),
            "BFloat16Storage" => Ok(FloatType::Bf16),
            other => Err(other.to_owned()),
        };
        let all = (|| {
            let (shape, stride) = (self.ints(size)?, self.ints(stride)?);
            (shape.len() == stride.len()).then_some(TensorAt {
                storage: key.clone(),
                numbers,
                count: self.int(count)?,
                offset: self.int(offset)?,
                shape,
                stride,
            })
        })();
        all.ok_or_else(wrong)
    }
}

impl Node {
    /// A plain value as a text; `None` for what is none.
    pub(super) fn plain(&self) -> Option<String> {
        match self {
            Self::Bool(value) => Some(value.to_string()),
            Self::Int(value) => Some(value.to_string()),
            Self::Float(value) => Some(value.to_string()),
            Self::Text(text) => Some(text.clone()),
            Self::Global(name) => PLAIN
                .iter()
                .any(|module| name.starts_with(&format!("{module}.")))
                .then(|| name.clone()),
            _ => None,
        }
    }
}
