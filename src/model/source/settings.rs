//! Folders and settings that decide where models are looked for: the environment, read once.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The folders that models are kept in and how the Hub is reached.
#[derive(Debug, Clone)]
pub struct SourceSettings {
    /// mlpeek's data directory: `MLPEEK_HOME`, else `mlpeek` in the XDG data directory.
    pub data: PathBuf,
    /// The Hub's cache: `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else `~/.cache/huggingface/hub`.
    pub hub_cache: PathBuf,
    /// The Hub's address without a slash at its end: `HF_ENDPOINT`.
    pub endpoint: String,
    /// `HF_TOKEN`, else the token file that `hf auth login` writes.
    pub token: Option<String>,
    /// `HF_HUB_OFFLINE`: never ask the Hub.
    pub offline: bool,
    /// A proxy is set, so that a direct connection says nothing about whether the Hub can be
    /// reached.
    pub proxied: bool,
    /// The Python to run for the package that carries the default model.
    pub python: PathBuf,
    /// The user's home directory, for `~/`.
    pub home: PathBuf,
}

impl SourceSettings {
    /// Reads the settings from the process environment.
    ///
    /// # Errors
    /// No home directory can be found, and the variables do not name folders in its place.
    pub fn from_env() -> Result<Self> {
        Self::from_lookup(|key| env::var_os(key))
    }

    /// Reads the settings from `get`, which returns the value of an environment variable.
    ///
    /// # Errors
    /// As [`SourceSettings::from_env`].
    pub fn from_lookup(get: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let path = |key: &str| get(key).filter(|v| !v.is_empty()).map(PathBuf::from);
        let text = |key: &str| {
            get(key)
                .and_then(|v| v.into_string().ok())
                .map(|v| v.trim().to_owned())
        };
        let text = |key: &str| text(key).filter(|v| !v.is_empty());
        let home = path("HOME").or_else(|| etcetera::home_dir().ok());
        let within_home = |below: &str| {
            home.as_ref().map(|h| h.join(below)).ok_or_else(|| {
                Error::refused(
                    "no home directory: set HOME, or both MLPEEK_HOME and HF_HOME, to a folder",
                )
            })
        };
        let data = match (path("MLPEEK_HOME"), path("XDG_DATA_HOME")) {
            (Some(ours), _) => ours,
            (None, Some(xdg)) if xdg.is_absolute() => xdg.join("mlpeek"),
            _ => within_home(".local/share/mlpeek")?,
        };
        let hf_home = match (path("HF_HOME"), path("XDG_CACHE_HOME")) {
            (Some(hf), _) => hf,
            (None, Some(cache)) => cache.join("huggingface"),
            _ => within_home(".cache/huggingface")?,
        };
        let hub_cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| hf_home.join("token"));
        let stored = || {
            std::fs::read_to_string(token_file)
                .ok()
                .map(|t| t.trim().to_owned())
        };
        let token = text("HF_TOKEN")
            .or_else(|| text("HUGGING_FACE_HUB_TOKEN"))
            .or_else(stored);
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let proxies = [
            "HTTPS_PROXY",
            "https_proxy",
            "HTTP_PROXY",
            "http_proxy",
            "ALL_PROXY",
            "all_proxy",
        ];
        Ok(Self {
            data,
            hub_cache: hub_cache.unwrap_or_else(|| hf_home.join("hub")),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            // A header cannot hold more than visible ASCII.
            token: token.filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_graphic())),
            offline: ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]
                .iter()
                .any(|key| text(key).is_some_and(|v| is_true(&v))),
            proxied: proxies.iter().any(|key| path(key).is_some()),
            python: PathBuf::from("python3"),
            home: home.unwrap_or_default(),
        })
    }

    /// The folder of the models that mlpeek itself fetched or was given.
    pub fn models(&self) -> PathBuf {
        self.data.join("models")
    }

    /// The path that a user typed, with `~/` as the home directory.
    pub(super) fn expand(&self, spec: &str) -> PathBuf {
        match spec.strip_prefix("~/") {
            Some(below) if self.home != Path::new("") => self.home.join(below),
            _ => PathBuf::from(spec),
        }
    }
}

/// mlpeek's data directory: `MLPEEK_HOME`, else `mlpeek` in the XDG data directory.
///
/// # Errors
/// As [`SourceSettings::from_env`].
pub fn data_dir() -> Result<PathBuf> {
    SourceSettings::from_env().map(|settings| settings.data)
}

fn is_true(value: &str) -> bool {
    ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> SourceSettings {
        SourceSettings::from_lookup(|key| {
            variables
                .iter()
                .find(|(k, _)| *k == key)
                .map(|(_, v)| v.into())
        })
        .unwrap()
    }

    #[test]
    fn the_default_folders_lie_below_home() {
        let p = settings(&[("HOME", "/h")]);
        assert_eq!(p.models(), Path::new("/h/.local/share/mlpeek/models"));
        assert_eq!(p.hub_cache, Path::new("/h/.cache/huggingface/hub"));
        assert_eq!(
            (p.endpoint.as_str(), p.offline, p.proxied),
            ("https://huggingface.co", false, false)
        );
        assert_eq!(p.expand("~/m.gguf"), Path::new("/h/m.gguf"));
        assert_eq!(p.expand("o/n"), Path::new("o/n"));
    }

    #[test]
    fn every_variable_is_read() {
        let p = settings(&[
            ("HOME", "/h"),
            ("XDG_DATA_HOME", "/x"),
            ("XDG_CACHE_HOME", "/c"),
            ("HF_ENDPOINT", "http://m/"),
        ]);
        assert_eq!(p.data, Path::new("/x/mlpeek"));
        assert_eq!(p.hub_cache, Path::new("/c/huggingface/hub"));
        assert_eq!(p.endpoint, "http://m");
        let p = settings(&[
            ("HOME", "/h"),
            ("MLPEEK_HOME", "/m"),
            ("HF_HOME", "/f"),
            ("HF_TOKEN", " t \n"),
        ]);
        assert_eq!(
            (p.data.as_path(), p.hub_cache.as_path()),
            (Path::new("/m"), Path::new("/f/hub"))
        );
        assert_eq!(p.token.as_deref(), Some("t"));
        let p = settings(&[
            ("HOME", "/h"),
            ("HF_HUB_CACHE", "/k"),
            ("HF_HUB_OFFLINE", "True"),
            ("https_proxy", "http://p"),
        ]);
        assert_eq!(p.hub_cache, Path::new("/k"));
        assert!(p.offline && p.proxied);
        assert!(!settings(&[("HOME", "/h"), ("HF_HUB_OFFLINE", "0")]).offline);
        assert_eq!(
            settings(&[("HOME", "/h"), ("HF_TOKEN", "a\nb")]).token,
            None
        );
    }

    #[test]
    fn the_stored_token_is_used_when_none_is_set() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "stored\n").unwrap();
        let hf_home = dir.path().to_str().unwrap();
        assert_eq!(
            settings(&[("HOME", "/h"), ("HF_HOME", hf_home)])
                .token
                .as_deref(),
            Some("stored")
        );
        assert_eq!(
            settings(&[("HOME", "/h"), ("HF_HOME", hf_home), ("HF_TOKEN", "set")])
                .token
                .as_deref(),
            Some("set")
        );
    }
}
