//! A writer of small GGUF files for tests.

/// Collects metadata and tensors; a key set twice keeps the later value.
#[derive(Clone, Default)]
pub(crate) struct GgufWriter {
    metadata: Vec<(String, Vec<u8>)>,
    tensors: Vec<(String, Vec<u64>, u32, u64)>,
    data: Vec<u8>,
}

fn text(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}

impl GgufWriter {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A value as its bytes, type number first.
    pub(crate) fn raw(mut self, key: &str, value: Vec<u8>) -> Self {
        self.metadata.retain(|(k, _)| k != key);
        self.metadata.push((key.to_owned(), value));
        self
    }

    pub(crate) fn string(self, key: &str, value: &str) -> Self {
        let mut out = 8u32.to_le_bytes().to_vec();
        text(&mut out, value);
        self.raw(key, out)
    }

    pub(crate) fn uint(self, key: &str, value: u32) -> Self {
        self.raw(key, [4u32.to_le_bytes(), value.to_le_bytes()].concat())
    }

    pub(crate) fn flag(self, key: &str, value: bool) -> Self {
        self.raw(key, [&7u32.to_le_bytes()[..], &[u8::from(value)]].concat())
    }

    fn list<T>(
        self,
        key: &str,
        kind: u32,
        items: &[T],
        mut write: impl FnMut(&mut Vec<u8>, &T),
    ) -> Self {
        let mut out = [9u32.to_le_bytes(), kind.to_le_bytes()].concat();
        out.extend((items.len() as u64).to_le_bytes());
        items.iter().for_each(|item| write(&mut out, item));
        self.raw(key, out)
    }

    pub(crate) fn strings(self, key: &str, items: &[String]) -> Self {
        self.list(key, 8, items, |out, s| text(out, s))
    }

    pub(crate) fn ints(self, key: &str, items: &[i32]) -> Self {
        self.list(key, 5, items, |out, i| out.extend(i.to_le_bytes()))
    }

    pub(crate) fn floats(self, key: &str, items: &[f32]) -> Self {
        self.list(key, 6, items, |out, x| out.extend(x.to_le_bytes()))
    }

    /// A tensor of ggml type `dtype` with these bytes.
    pub(crate) fn tensor(mut self, name: &str, dims: &[u64], dtype: u32, data: &[u8]) -> Self {
        self.tensors.push((
            name.to_owned(),
            dims.to_vec(),
            dtype,
            self.data.len() as u64,
        ));
        self.data.extend(data);
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            text(&mut out, key);
            out.extend(value);
        }
        for (name, dims, dtype, offset) in &self.tensors {
            text(&mut out, name);
            out.extend((dims.len() as u32).to_le_bytes());
            dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(dtype.to_le_bytes());
            out.extend(offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(&self.data);
        out
    }
}
