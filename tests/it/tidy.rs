//! Goal: what the compiler does not enforce about the tree holds. Method: the sources are read as text.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which layers each layer may import. `crate::` paths are what is looked at.
const LAYERS: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("random", &[]),
    ("background", &[]),
    ("json", &[]),
    ("patch", &[]),
    ("etag", &[]),
    ("recent", &["clock"]),
    ("stamp", &["clock", "random"]),
    ("kv", &["clock", "random"]),
    ("sim", &["kv", "clock", "random", "background"]),
    ("patterns", &["kv", "clock", "random", "background", "json", "patch", "etag", "recent", "stamp"]),
    ("worker", &["patterns", "kv", "clock", "random", "background", "json", "patch", "etag", "recent", "stamp"]),
    (
        "routes",
        &["worker", "patterns", "kv", "clock", "random", "background", "json", "patch", "etag", "recent", "stamp"],
    ),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().map(|entry| entry.unwrap().path()) {
            let generated = ["target", "build", "node_modules", "results"].iter().any(|name| entry.ends_with(name));
            if entry.is_dir() && !generated {
                folders.push(entry);
            } else if entry.to_string_lossy().ends_with(ending) {
                found.push(entry);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn short(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

#[track_caller]
fn none(offences: &[String]) {
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

/// The layer of a file below `src/`: its first folder, or its name.
fn layer(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    inside.iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_owned()
}

#[test]
fn layers_import_only_downwards() {
    let mut offences = Vec::new();
    for path in files("src", ".rs") {
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer(&path)) else {
            if layer(&path) != "lib" {
                offences.push(format!("{} is in no layer", short(&path)));
            }
            continue;
        };
        for (number, line) in read(&path).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for import in code.split("crate::").skip(1) {
                let name: String = import.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let known = LAYERS.iter().any(|(layer, _)| *layer == name);
                if known && name != layer(&path) && !allowed.contains(&name.as_str()) {
                    offences.push(format!("{}:{} may not import {name}", short(&path), number + 1));
                }
            }
        }
    }
    none(&offences);
}

#[test]
fn every_file_opens_with_what_it_promises() {
    let mut offences = Vec::new();
    for (folder, ending, head) in [
        ("src", ".rs", "//! "),
        ("tests", ".rs", "//! "),
        ("examples", ".rs", "//! "),
        ("tests", ".ts", "// "),
        ("bench", ".mjs", "// "),
        ("bench", ".ts", "// "),
        ("scripts", ".mjs", "// "),
        ("src", ".js", "// "),
    ] {
        for path in files(folder, ending) {
            if !read(&path).trim_start_matches("#!/usr/bin/env node\n").starts_with(head) {
                offences.push(format!("{} does not open with `{head}`", short(&path)));
            }
        }
    }
    none(&offences);
}

fn patterns() -> Vec<String> {
    let folder = root().join("src/patterns");
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let mut stems: Vec<String> =
        names.map(|name| name.trim_end_matches(".rs").to_owned()).filter(|stem| stem != "mod").collect();
    stems.sort();
    stems
}

#[test]
fn every_pattern_has_its_twins_and_its_row() {
    let readme = read(&root().join("README.md"));
    let mut offences = Vec::new();
    for stem in patterns() {
        let exists = |path: String| root().join(path).exists();
        let twins = [
            exists(format!("src/routes/{stem}.rs")) || exists(format!("src/routes/{stem}/mod.rs")),
            exists(format!("tests/it/{stem}.rs")) || exists(format!("tests/it/{stem}/mod.rs")),
            exists(format!("tests/worker/{stem}.test.ts")),
            exists(format!("openapi/{stem}.json")),
            readme.contains(&format!("(src/patterns/{stem}")),
        ];
        let names = ["routes", "tests/it", "tests/worker", "openapi", "README row"];
        for (name, _) in names.iter().zip(twins).filter(|(_, there)| !there) {
            offences.push(format!("{stem} has no {name}"));
        }
    }
    none(&offences);
}

#[test]
fn no_rust_file_is_left_out_of_the_build() {
    let mut offences = Vec::new();
    for path in files("src", ".rs").into_iter().chain(files("tests/it", ".rs")) {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if ["lib", "main"].contains(&name.as_str()) {
            continue;
        }
        let folder = path.parent().unwrap();
        let (module, parents) = if name == "mod" {
            let module = folder.file_name().unwrap().to_string_lossy().into_owned();
            (module, [folder.parent().unwrap().join("mod.rs"), folder.parent().unwrap().join("lib.rs")])
        } else {
            (name, [folder.join("mod.rs"), folder.join("lib.rs")])
        };
        let parents = parents.into_iter().chain([root().join("tests/it/main.rs")]).filter(|parent| parent.exists());
        let declaration = format!("mod {module};");
        let declares = |text: &str| {
            text.lines()
                .any(|line| line.trim().trim_start_matches("pub(crate) ").trim_start_matches("pub ") == declaration)
        };
        if !parents.map(|parent| read(&parent)).any(|text| declares(&text)) {
            offences.push(format!("{} belongs to no module", short(&path)));
        }
    }
    none(&offences);
}

/// `METHOD /path/{parameter}` of every `route!` in `src/routes`.
fn routes() -> BTreeSet<String> {
    let mut routes = BTreeSet::new();
    for path in files("src/routes", ".rs") {
        let text = read(&path);
        let code: String = text.lines().filter(|line| !line.trim().starts_with("//")).collect();
        for call in code.split("route!(").skip(1) {
            let (method, rest) = call.split_once(' ').unwrap();
            let pattern = rest.split('"').nth(1).unwrap();
            let segments = pattern.split('/').map(|segment| match segment.strip_prefix([':', '*']) {
                Some(name) => format!("{{{name}}}"),
                None => segment.to_owned(),
            });
            routes.insert(format!("{method} {}", segments.collect::<Vec<_>>().join("/")));
        }
    }
    routes
}

/// The same of the OpenAPI parts.
fn documented() -> BTreeSet<String> {
    let mut documented = BTreeSet::new();
    for path in files("openapi", ".json") {
        let part: serde_json::Value = serde_json::from_str(&read(&path)).unwrap();
        for (path, item) in part["paths"].as_object().into_iter().flatten() {
            // Any method goes there, past the router; `tests/worker/response_cache.test.ts` proves it.
            if item["x-any-method"] == true {
                continue;
            }
            let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters" && !key.starts_with("x-"));
            documented.extend(methods.map(|method| format!("{} {path}", method.to_uppercase())));
        }
    }
    documented
}

#[test]
fn every_route_is_documented_and_every_documented_route_exists() {
    let (routes, documented) = (routes(), documented());
    assert!(!routes.is_empty());
    let mut offences: Vec<String> = routes.difference(&documented).map(|r| format!("{r} is not in openapi/")).collect();
    offences.extend(documented.difference(&routes).map(|r| format!("{r} is documented and has no route")));
    none(&offences);
}
