//! The rule of `src/lib.rs`, held: imports point down its table and no two top-level modules import
//! each other in a circle.
//!
//! The table is read from the header of `src/lib.rs` itself, a row a layer, the highest first;
//! every path of the sources is read by a parser. Test code is left out: it may look anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// Which file imports what: `imports[from][to]` are the files of module `from` that name module
/// `to`.
type Imports = BTreeMap<String, BTreeMap<String, BTreeSet<PathBuf>>>;

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The layer of every module named in the table of `lib.rs`; 0 is the highest.
fn layers() -> BTreeMap<String, usize> {
    let text = std::fs::read_to_string(src().join("lib.rs")).unwrap();
    let rows = text
        .lines()
        .filter_map(|line| line.strip_prefix("//! | "))
        .skip_while(|row| !row.contains('`'));
    let mut layers = BTreeMap::new();
    for (layer, row) in rows.enumerate() {
        let modules = row.split_once('|').expect("a row has two cells").1;
        for name in modules
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|name| src_of(name).is_some())
        {
            assert!(
                layers.insert(name.to_owned(), layer).is_none(),
                "{name} stands twice in the table"
            );
        }
    }
    layers
}

/// The file that a top-level module begins in.
fn src_of(module: &str) -> Option<PathBuf> {
    [
        src().join(format!("{module}.rs")),
        src().join(module).join("mod.rs"),
    ]
    .into_iter()
    .find(|path| path.exists())
}

/// The names of the top-level modules, from the files themselves.
fn modules() -> BTreeSet<String> {
    let entries = std::fs::read_dir(src())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let is_module = |path: &PathBuf| path.is_dir() || path.extension().is_some_and(|e| e == "rs");
    let name = |path: PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    entries
        .filter(is_module)
        .map(name)
        .filter(|name| name != "lib" && name != "main")
        .collect()
}

/// Collects the top-level modules that a file's paths name.
struct Paths<'a> {
    modules: &'a BTreeSet<String>,
    /// How many modules below the crate's root the code being read stands.
    depth: usize,
    found: BTreeSet<String>,
    /// Modules of files of their own that are compiled for tests alone.
    test_files: Vec<String>,
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|a| {
        a.path().is_ident("cfg")
            && matches!(&a.meta, syn::Meta::List(list) if list.tokens.to_string() == "test")
    })
}

impl Paths<'_> {
    /// `names` are a path's first segments, as far as they are known.
    fn take(&mut self, names: &[String]) {
        let root = match names.first().map(String::as_str) {
            Some("crate") => 1,
            Some("super") => {
                let up = names.iter().take_while(|name| *name == "super").count();
                if up < self.depth {
                    return;
                }
                up
            }
            _ => return,
        };
        if let Some(module) = names.get(root).filter(|name| self.modules.contains(*name)) {
            self.found.insert(module.clone());
        }
    }

    fn tree(&mut self, before: &mut Vec<String>, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.tree(before, &path.tree);
                before.pop();
            }
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|item| self.tree(before, item))
            }
            syn::UseTree::Name(syn::UseName { ident })
            | syn::UseTree::Rename(syn::UseRename { ident, .. }) => {
                before.push(ident.to_string());
                self.take(before);
                before.pop();
            }
            syn::UseTree::Glob(_) => self.take(before),
        }
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        match (&module.content, is_test(&module.attrs)) {
            (None, true) => self.test_files.push(module.ident.to_string()),
            (_, true) => {}
            (_, false) => {
                self.depth += 1;
                visit::visit_item_mod(self, module);
                self.depth -= 1;
            }
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_test(&item.attrs) {
            self.tree(&mut Vec::new(), &item.tree);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if !is_test(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.take(&names);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        // The arguments of a macro are no syntax tree: `crate :: name` is looked for among their
        // tokens.
        let tokens = call.tokens.to_string().replace(' ', "");
        for (at, _) in tokens.match_indices("crate::") {
            let name: String = tokens[at + 7..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            self.take(&["crate".to_owned(), name]);
        }
        visit::visit_macro(self, call);
    }
}

/// Reads the file of a module and those of its children; `depth` is how far it stands below the
/// crate's root.
fn read(
    file: &Path,
    depth: usize,
    modules: &BTreeSet<String>,
    found: &mut BTreeMap<String, BTreeSet<PathBuf>>,
) {
    let text = std::fs::read_to_string(file).unwrap();
    let tree = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let mut paths = Paths {
        modules,
        depth,
        found: BTreeSet::new(),
        test_files: Vec::new(),
    };
    paths.visit_file(&tree);
    let inside = file.strip_prefix(src()).unwrap().to_path_buf();
    for module in paths.found {
        found.entry(module).or_default().insert(inside.clone());
    }
    let own = if file.ends_with("mod.rs") {
        file.parent().unwrap().to_path_buf()
    } else {
        file.with_extension("")
    };
    for item in &tree.items {
        let syn::Item::Mod(child) = item else {
            continue;
        };
        let name = child.ident.to_string();
        if child.content.is_some() || paths.test_files.contains(&name) {
            continue;
        }
        let files = [
            own.join(format!("{name}.rs")),
            own.join(&name).join("mod.rs"),
        ];
        let file = files
            .iter()
            .find(|f| f.exists())
            .unwrap_or_else(|| panic!("module {name} of {}", file.display()));
        read(file, depth + 1, modules, found);
    }
}

fn imports() -> Imports {
    let modules = modules();
    let mut imports = Imports::new();
    for module in &modules {
        let found = imports.entry(module.clone()).or_default();
        read(&src_of(module).unwrap(), 1, &modules, found);
        found.remove(module);
    }
    imports
}

#[test]
fn the_table_of_the_crate_names_every_module() {
    let named: BTreeSet<String> = layers().into_keys().collect();
    assert_eq!(
        named,
        modules(),
        "the table in src/lib.rs against the modules in src/"
    );
}

#[test]
fn imports_point_down() {
    let (layers, mut wrong) = (layers(), Vec::new());
    for (from, targets) in imports() {
        for (to, files) in targets {
            if layers[&to] < layers[&from] {
                let files: Vec<_> = files.iter().map(|f| f.display().to_string()).collect();
                wrong.push(format!(
                    "{from} imports {to}, which stands above it: {}",
                    files.join(", ")
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let mut left = imports();
    // What imports nothing that is left is in no circle, and so on until nothing more can be taken
    // away.
    loop {
        let names: BTreeSet<String> = left.keys().cloned().collect();
        let free =
            |to: &BTreeMap<String, BTreeSet<PathBuf>>| to.keys().all(|name| !names.contains(name));
        let before = left.len();
        left.retain(|_, to| !free(to));
        if left.len() == before {
            break;
        }
    }
    // The same from above: what nothing imports that is left.
    loop {
        let imported: BTreeSet<String> = left.values().flat_map(|to| to.keys().cloned()).collect();
        let before = left.len();
        left.retain(|name, _| imported.contains(name));
        if left.len() == before {
            break;
        }
    }
    let mut lines = Vec::new();
    for (from, targets) in &left {
        for (to, files) in targets.iter().filter(|(to, _)| left.contains_key(*to)) {
            let files: Vec<_> = files.iter().map(|f| f.display().to_string()).collect();
            lines.push(format!("{from} -> {to}: {}", files.join(", ")));
        }
    }
    assert!(
        left.is_empty(),
        "these modules import each other in a circle:\n{}",
        lines.join("\n")
    );
}

#[test]
fn a_path_is_found_wherever_it_is_written() {
    let modules: BTreeSet<String> = ["disk", "study", "eval", "factor", "ui", "text"]
        .map(str::to_owned)
        .into();
    let code = "use crate::disk; use super::{study::Study, other::X as Y}; mod inner { use super::super::eval; }
        fn f() -> crate::factor::Fit { format!(\"{}\", crate::ui::name()); }
        #[cfg(test)] mod tests { use crate::text; } #[cfg(test)] use crate::text::x;";
    let mut paths = Paths {
        modules: &modules,
        depth: 1,
        found: BTreeSet::new(),
        test_files: Vec::new(),
    };
    paths.visit_file(&syn::parse_file(code).unwrap());
    let found: Vec<&str> = paths.found.iter().map(String::as_str).collect();
    assert_eq!(found, ["disk", "eval", "factor", "study", "ui"]);
}
