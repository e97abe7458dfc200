//! How a direction is written: `3`, `kmeans:7:2`, `fit:NAME/3`, `file:V.npy:0:-1`.

use crate::directions::SetKind;
use crate::directions::set::find_titled;
use crate::error::{Error, Result};
use crate::interop::direction_file;
use crate::study::Study;

/// A direction as a person writes it, in full `SET:ID:WEIGHT`.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// The set; the fit that is meant where none is named.
    pub kind: SetKind,
    /// Its number or name.
    pub id: String,
    /// Its share of the strength.
    pub weight: f32,
}

impl Reference {
    /// Reads `3`, `3:-0.5`, `diffmean:months`, `kmeans:7:2`, `fit:NAME/3`, `sae:NAME/17:-1`,
    /// `sae:17` (the newest).
    ///
    /// # Errors
    /// [`Error::Usage`] for what names no direction.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            Error::usage(format!(
                "'{}' is no direction: write a feature's number, or SET:ID ({}), each with an optional :WEIGHT",
                text.escape_debug(),
                SetKind::examples()
            ))
        };
        let text = text.trim();
        let (set, rest) = match text.split_once(':') {
            Some((set, rest)) if set.parse::<usize>().is_err() => (set, rest),
            _ => ("fit", text),
        };
        if set == "file" {
            return Self::parse_of_file(rest).ok_or_else(wrong);
        }
        let weighted = rest
            .rsplit_once(':')
            .and_then(|(id, weight)| Some((id, weight.parse::<f32>().ok()?)));
        let (id, weight) = weighted.unwrap_or((rest, 1.0));
        let (kind, id) = match id.split_once('/') {
            Some((name, id)) if matches!(set, "fit" | "sae") => {
                (format!("{set}:{name}").parse()?, id)
            }
            _ => (set.parse()?, id),
        };
        let numbered =
            !matches!(kind, SetKind::Fit(_) | SetKind::Sae(_)) || id.parse::<usize>().is_ok();
        if id.is_empty() || !weight.is_finite() || !numbered {
            return Err(wrong());
        }
        Ok(Self {
            kind,
            id: id.to_owned(),
            weight,
        })
    }

    /// `PATH[@HOOK]:ID[:WEIGHT]`: the path goes on to the last ending of a file that is read.
    fn parse_of_file(text: &str) -> Option<Self> {
        let ends = |ending: &str| {
            let whole = format!(".{ending}");
            let found = text.match_indices(&whole).map(|(at, _)| at + whole.len());
            let whole_word = |at: &usize| matches!(text.as_bytes().get(*at), Some(b':' | b'@'));
            found.filter(whole_word).last()
        };
        let at = direction_file::ENDINGS
            .iter()
            .filter_map(|e| ends(e))
            .max()?;
        let colon = at + text[at..].find(':')?;
        let (set, id) = (&text[..colon], &text[colon + 1..]);
        let weighted = id
            .rsplit_once(':')
            .and_then(|(id, weight)| Some((id, weight.parse::<f32>().ok()?)));
        let (id, weight) = weighted.unwrap_or((id, 1.0));
        (!id.is_empty() && weight.is_finite()).then_some(Self {
            kind: format!("file:{set}").parse().ok()?,
            id: id.to_owned(),
            weight,
        })
    }

    /// Refuses a label that the study lacks before the model is asked about all of them, which takes
    /// up to minutes; directions of other sets are found when their set is open.
    ///
    /// # Errors
    /// [`Error::Usage`] names the labels there are.
    pub fn check_label(&self, study: &Study) -> Result<()> {
        let tokens = study.tokens()?;
        let labels = &tokens.labels;
        if self.kind.is_measured() && !labels.is_empty() {
            let title = |j: usize| labels.get(j).map(String::as_str);
            find_titled(&self.kind.to_string(), labels.len(), title, &self.id)?;
        }
        Ok(())
    }

    /// Several, separated by commas.
    ///
    /// # Errors
    /// What [`Self::parse`] returns for one of them.
    pub fn parse_list(text: &str) -> Result<Vec<Self>> {
        text.split(',').map(Self::parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directions::Baseline;
    use crate::model::{HookPoint, HookSite};

    #[test]
    fn a_direction_is_written_with_its_set_and_weight() {
        let read = |text: &str| Reference::parse(text).unwrap();
        let reference = |kind, id: &str, weight| Reference {
            kind,
            id: id.to_owned(),
            weight,
        };
        assert_eq!(read("3"), reference(SetKind::FIT, "3", 1.0));
        assert_eq!(read(" 17:-0.5"), reference(SetKind::FIT, "17", -0.5));
        assert_eq!(read("fit:3:2"), reference(SetKind::FIT, "3", 2.0));
        assert_eq!(
            read("fit:k-1.5/3:2"),
            reference(SetKind::Fit(Some("k-1.5".to_owned())), "3", 2.0)
        );
        assert_eq!(read("sae:17:-1"), reference(SetKind::Sae(None), "17", -1.0));
        assert_eq!(
            read("sae:topk/17"),
            reference(SetKind::Sae(Some("topk".to_owned())), "17", 1.0)
        );
        assert_eq!(
            read("diffmean:body parts"),
            reference(Baseline::DiffMean.into(), "body parts", 1.0)
        );
        assert_eq!(
            read("diffmean:weekday/Monday:0.5"),
            reference(Baseline::DiffMean.into(), "weekday/Monday", 0.5)
        );
        assert_eq!(
            read("neuron:7:-1"),
            reference(Baseline::Neuron.into(), "7", -1.0)
        );
        let at = SetKind::Baseline {
            kind: Baseline::DiffMean,
            hook: Some(HookPoint {
                layer: 1,
                site: HookSite::ResidPost,
            }),
        };
        assert_eq!(
            read("diffmean@1.hook_resid_post:months:0.5"),
            reference(at, "months", 0.5)
        );
        let file = |path: &str| SetKind::File {
            path: path.to_owned(),
            hook: None,
        };
        assert_eq!(read("file:a/v.npy:3"), reference(file("a/v.npy"), "3", 1.0));
        assert_eq!(
            read("file:C:x.pt:two words:-0.5"),
            reference(file("C:x.pt"), "two words", -0.5)
        );
        let at = "file:v.safetensors@2.hook_mlp_out".parse().unwrap();
        assert_eq!(
            read("file:v.safetensors@2.hook_mlp_out:0:2"),
            reference(at, "0", 2.0)
        );
        assert_eq!(Reference::parse_list("3:1,kmeans:2").unwrap().len(), 2);
        for bad in [
            "",
            "x",
            "3:",
            "3:nan",
            "1,,2",
            "-1",
            "proof:1",
            "diffmean:",
            "fit:months",
            "sae:topk",
            "sae:/3",
            "fit:k/",
            "file:v.npy",
            "file:v.npy:",
            "file:v:3",
        ] {
            assert!(
                matches!(Reference::parse_list(bad), Err(Error::Usage(_))),
                "{bad}"
            );
        }
    }
}
