//! What programs put before a model's names when they save it: `module.` (DistributedDataParallel), `_orig_mod.`
//! (torch.compile), `model.` (Lightning), `base_model.model.` (PEFT), a field's name; in any order, or more than once.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

/// A tensor that every vision tower has, and what the tower's names lack where it was saved by itself: Hugging Face's,
/// OpenAI's; transformers 5's `CLIPVisionModel`, open_clip's `model.visual`.
const ANCHORS: [(&str, &str); 4] = [
    ("vision_model.embeddings.class_embedding", ""),
    ("visual.class_embedding", ""),
    ("embeddings.class_embedding", "vision_model."),
    ("class_embedding", "visual."),
];

/// What is before a CLIP's own names, and what they lack.
#[derive(Debug, PartialEq)]
pub struct Prefix {
    pub surplus: String,
    pub lacking: &'static str,
}

impl Prefix {
    /// That of these names; `None` where there is nothing to change, or no vision tower at all.
    ///
    /// # Errors
    /// Several vision towers; adapters, which are no weights by themselves.
    pub fn of<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Result<Option<Prefix>> {
        let adapter = names.clone().find(|name| {
            [".lora_", ".base_layer.", ".modules_to_save.", ".original_module."]
                .iter()
                .any(|part| name.contains(part))
        });
        ensure!(
            adapter.is_none(),
            "it has {}: an adapter (LoRA), which changes what another model computes; merge it into that model with \
             PEFT's merge_and_unload(), save_pretrained() the result, and give its folder",
            adapter.unwrap_or_default()
        );
        for (anchor, lacking) in ANCHORS {
            let before = |name: &'a str| {
                name.strip_suffix(anchor).filter(|surplus| surplus.is_empty() || surplus.ends_with('.'))
            };
            let found: BTreeSet<&str> = names.clone().filter_map(before).collect();
            let called: Vec<String> = found.iter().map(|surplus| format!("{surplus}{anchor}")).collect();
            ensure!(found.len() < 2, "it has more than one vision tower: {}", called.join(", "));
            if let Some(&surplus) = found.first() {
                let plain = surplus.is_empty() && lacking.is_empty();
                return Ok((!plain).then(|| Prefix { surplus: surplus.to_string(), lacking }));
            }
        }
        Ok(None)
    }

    /// A tensor's name as CLIP has it; one that is not under the prefix keeps its own.
    pub fn apply(&self, name: &str) -> String {
        match name.strip_prefix(&self.surplus) {
            // The projection is beside the tower, not in it.
            Some(rest) if rest.starts_with("visual_projection.") => rest.to_string(),
            Some(rest) => format!("{}{rest}", self.lacking),
            None => name.to_string(),
        }
    }

    /// For a person to read.
    pub fn notice(&self) -> String {
        let Prefix { surplus, lacking } = self;
        match (surplus.is_empty(), lacking.is_empty()) {
            (true, _) => format!("its tensors are a vision tower's alone; they are read as {lacking}…"),
            (false, true) => format!("its tensors are read without the {surplus} before their names"),
            (false, false) => {
                format!("its tensors are a vision tower's alone; {surplus}… is read as {lacking}…")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Result<Option<Prefix>> {
        Prefix::of(names.iter().copied())
    }

    #[test]
    fn any_prefix_is_found_by_the_vision_tower() {
        let names = ["visual.class_embedding", "vision_model.embeddings.class_embedding"];
        for surplus in
            ["module.", "_orig_mod.", "model.", "base_model.model.", "module._orig_mod.model.", "a.b."]
        {
            for name in names {
                let prefix = of(&[&format!("{surplus}{name}"), "step"]).unwrap().unwrap();
                assert_eq!(prefix, Prefix { surplus: surplus.to_string(), lacking: "" });
                assert_eq!(prefix.apply(&format!("{surplus}logit_scale")), "logit_scale");
                assert_eq!(prefix.apply("step"), "step");
            }
        }
        assert_eq!(of(&["visual.class_embedding"]).unwrap(), None);
        assert_eq!(of(&["visual.layer1.0.conv1.weight", "my_class_embedding"]).unwrap(), None);
        let tower = of(&["model.embeddings.class_embedding"]).unwrap().unwrap();
        assert_eq!(tower.apply("model.pre_layrnorm.weight"), "vision_model.pre_layrnorm.weight");
        assert_eq!(tower.apply("model.visual_projection.weight"), "visual_projection.weight");
        let tower = of(&["class_embedding"]).unwrap().unwrap();
        assert_eq!(tower.apply("proj"), "visual.proj");
    }

    #[test]
    fn what_has_no_one_reading_is_refused() {
        let error =
            of(&["student.visual.class_embedding", "visual.class_embedding"]).unwrap_err().to_string();
        assert!(error.contains("visual.class_embedding, student.visual.class_embedding"), "{error}");
        let lora = "base_model.model.vision_model.encoder.layers.0.self_attn.q_proj.lora_A.weight";
        let error = of(&[lora]).unwrap_err().to_string();
        assert!(error.contains(lora) && error.contains("merge_and_unload"), "{error}");
    }
}
