//! The rule of `src/lib.rs`, held: imports point down its table and no two top-level modules import
//! each other in a circle. `src/ui/mod.rs` has a table of its own modules, which is held alike.
//!
//! A table is read from the header of the file that declares the modules, a row a layer, the
//! highest first; every path of the sources is read by a parser. Test code is left out: it may look
//! anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// Which file imports what: `imports[from][to]` are the files of module `from` that name module
/// `to`.
type Imports = BTreeMap<String, BTreeMap<String, BTreeSet<PathBuf>>>;

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// A module whose children have a table of layers.
struct Parent {
    /// Its path below the crate's root: none for the crate itself.
    path: &'static [&'static str],
    /// The file that declares its children, with the table in its header.
    file: &'static str,
}

const CRATE: Parent = Parent {
    path: &[],
    file: "lib.rs",
};
const UI: Parent = Parent {
    path: &["ui"],
    file: "ui/mod.rs",
};

impl Parent {
    fn dir(&self) -> PathBuf {
        self.path.iter().fold(src(), |dir, name| dir.join(name))
    }

    /// The layer of every module named in the table; 0 is the highest.
    fn layers(&self) -> BTreeMap<String, usize> {
        let text = std::fs::read_to_string(src().join(self.file)).unwrap();
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
                .filter(|name| self.file_of(name).is_some())
            {
                assert!(
                    layers.insert(name.to_owned(), layer).is_none(),
                    "{name} stands twice in the table"
                );
            }
        }
        layers
    }

    /// The file that a child begins in.
    fn file_of(&self, module: &str) -> Option<PathBuf> {
        [
            self.dir().join(format!("{module}.rs")),
            self.dir().join(module).join("mod.rs"),
        ]
        .into_iter()
        .find(|path| path.exists())
    }

    /// The names of the children, but for those that are compiled for tests alone.
    fn modules(&self) -> BTreeSet<String> {
        let text = std::fs::read_to_string(src().join(self.file)).unwrap();
        let items = syn::parse_file(&text).unwrap().items;
        let name = |item: &syn::Item| match item {
            syn::Item::Mod(child) if !is_test(&child.attrs) => Some(child.ident.to_string()),
            _ => None,
        };
        items.iter().filter_map(name).collect()
    }

    fn imports(&self) -> Imports {
        let modules = self.modules();
        let mut imports = Imports::new();
        for module in &modules {
            let found = imports.entry(module.clone()).or_default();
            let file = self.file_of(module).unwrap();
            read(&file, self.path.len() + 1, self.path, &modules, found);
            found.remove(module);
        }
        imports
    }
}

/// Collects the children of a module that a file's paths name.
struct Paths<'a> {
    /// The path of the parent.
    parent: &'a [&'a str],
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
        let below = match names.first().map(String::as_str) {
            Some("crate") => {
                let path = &names[1..];
                let inside = path.iter().zip(self.parent).all(|(a, b)| a == b);
                path.get(self.parent.len()..).filter(|_| inside)
            }
            Some("super") => {
                // So many steps up lead to the parent, unless they stop below it.
                let up = names.iter().take_while(|name| *name == "super").count();
                (up == self.depth - self.parent.len()).then(|| &names[up..])
            }
            _ => None,
        };
        let child = below.and_then(|names| names.first());
        if let Some(module) = child.filter(|name| self.modules.contains(*name)) {
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
            let path: String = tokens[at..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':'))
                .collect();
            let names: Vec<String> = path.split("::").map(str::to_owned).collect();
            self.take(&names);
        }
        visit::visit_macro(self, call);
    }
}

/// Reads the file of a module and those of its children; `depth` is how far it stands below the
/// crate's root.
fn read(
    file: &Path,
    depth: usize,
    parent: &[&str],
    modules: &BTreeSet<String>,
    found: &mut BTreeMap<String, BTreeSet<PathBuf>>,
) {
    let text = std::fs::read_to_string(file).unwrap();
    let tree = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let mut paths = Paths {
        parent,
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
        read(file, depth + 1, parent, modules, found);
    }
}

#[test]
fn the_tables_name_every_module() {
    for parent in [CRATE, UI] {
        let named: BTreeSet<String> = parent.layers().into_keys().collect();
        assert_eq!(
            named,
            parent.modules(),
            "the table in src/{} against the modules that it declares",
            parent.file
        );
    }
}

#[test]
fn imports_point_down() {
    let mut wrong = Vec::new();
    for parent in [CRATE, UI] {
        let layers = parent.layers();
        for (from, targets) in parent.imports() {
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
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What of `imports` is in a circle.
fn circle(mut left: Imports) -> Imports {
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
    left
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let mut lines = Vec::new();
    for parent in [CRATE, UI] {
        let left = circle(parent.imports());
        for (from, targets) in &left {
            for (to, files) in targets.iter().filter(|(to, _)| left.contains_key(*to)) {
                let files: Vec<_> = files.iter().map(|f| f.display().to_string()).collect();
                lines.push(format!("{from} -> {to}: {}", files.join(", ")));
            }
        }
    }
    assert!(
        lines.is_empty(),
        "these modules import each other in a circle:\n{}",
        lines.join("\n")
    );
}

/// The modules of `modules` that `code` names, standing `depth` modules below the crate's root.
fn found(code: &str, parent: &[&str], depth: usize, modules: &[&str]) -> Vec<String> {
    let modules: BTreeSet<String> = modules.iter().map(|&name| name.to_owned()).collect();
    let mut paths = Paths {
        parent,
        modules: &modules,
        depth,
        found: BTreeSet::new(),
        test_files: Vec::new(),
    };
    paths.visit_file(&syn::parse_file(code).unwrap());
    paths.found.into_iter().collect()
}

#[test]
fn a_path_is_found_wherever_it_is_written() {
    let code = "use crate::disk; use super::{study::Study, other::X as Y}; mod inner { use super::super::eval; }
        fn f() -> crate::factor::Fit { format!(\"{}\", crate::ui::name()); }
        #[cfg(test)] mod tests { use crate::text; } #[cfg(test)] use crate::text::x;";
    let modules = ["disk", "study", "eval", "factor", "ui", "text"];
    assert_eq!(
        found(code, &[], 1, &modules),
        ["disk", "eval", "factor", "study", "ui"]
    );
}

#[test]
fn a_path_is_found_below_a_module() {
    let code =
        "use crate::ui::{app::App, draw::put}; use crate::theme::Other; use super::list::motion;
        use super::super::world::World; fn f() { g!(crate::ui::action::A); }";
    let modules = ["app", "draw", "theme", "list", "world", "action"];
    assert_eq!(
        found(code, &["ui"], 3, &modules),
        ["action", "app", "draw", "world"]
    );
}

/// A rename takes the place of whatever had the name, a pipe or a link too: `disk` alone knows what may be
/// replaced.
#[test]
fn files_are_renamed_by_disk_alone() {
    fn visit(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let mut files = Vec::new();
    visit(&src(), &mut files);
    let mut renaming: Vec<String> = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let name = path.strip_prefix(src()).unwrap().display().to_string();
        if code.contains("fs::rename(") && !name.contains("tests/") {
            renaming.push(name);
        }
    }
    renaming.sort();
    // A package's directory is unpacked beside its place in the cache of models, which nobody names.
    assert_eq!(renaming, ["disk.rs", "model/source/package.rs"]);
}
