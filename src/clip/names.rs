//! What Hugging Face and OpenAI (open_clip too) call the tensors of a CLIP.

use serde::Serialize;

/// How a checkpoint names its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Naming {
    HuggingFace,
    /// OpenAI's and open_clip's; projections are stored transposed.
    OpenAi,
}

/// The vision tower's tensors; norms and blocks by their prefix.
pub(super) struct VisionNames {
    pub class: &'static str,
    pub patch: &'static str,
    pub position: &'static str,
    pub pre_ln: &'static str,
    pub blocks: &'static str,
    pub post_ln: &'static str,
    pub projection: &'static str,
}

/// The text tower's.
pub(super) struct TextNames {
    pub token: &'static str,
    pub position: &'static str,
    pub blocks: &'static str,
    pub final_ln: &'static str,
    pub projection: &'static str,
}

impl Naming {
    pub(super) fn vision(self) -> VisionNames {
        match self {
            Naming::HuggingFace => VisionNames {
                class: "vision_model.embeddings.class_embedding",
                patch: "vision_model.embeddings.patch_embedding.weight",
                position: "vision_model.embeddings.position_embedding.weight",
                pre_ln: "vision_model.pre_layrnorm", // sic
                blocks: "vision_model.encoder.layers",
                post_ln: "vision_model.post_layernorm",
                projection: "visual_projection.weight",
            },
            Naming::OpenAi => VisionNames {
                class: "visual.class_embedding",
                patch: "visual.conv1.weight",
                position: "visual.positional_embedding",
                pre_ln: "visual.ln_pre",
                blocks: "visual.transformer.resblocks",
                post_ln: "visual.ln_post",
                projection: "visual.proj",
            },
        }
    }

    pub(super) fn text(self) -> TextNames {
        match self {
            Naming::HuggingFace => TextNames {
                token: "text_model.embeddings.token_embedding.weight",
                position: "text_model.embeddings.position_embedding.weight",
                blocks: "text_model.encoder.layers",
                final_ln: "text_model.final_layer_norm",
                projection: "text_projection.weight",
            },
            Naming::OpenAi => TextNames {
                token: "token_embedding.weight",
                position: "positional_embedding",
                blocks: "transformer.resblocks",
                final_ln: "ln_final",
                projection: "text_projection",
            },
        }
    }

    /// The first linear layer of a block's MLP.
    pub(super) fn fc1(self) -> &'static str {
        match self {
            Naming::HuggingFace => "mlp.fc1",
            Naming::OpenAi => "mlp.c_fc",
        }
    }

    /// Whether a tensor of this name belongs to the vision tower, whatever it may be.
    pub(super) fn is_vision(self, name: &str) -> bool {
        let prefixes: &[&str] = match self {
            Naming::HuggingFace => &["vision_model.", "visual_projection."],
            Naming::OpenAi => &["visual."],
        };
        prefixes.iter().any(|prefix| name.starts_with(prefix))
    }

    /// Whether a tensor of this name belongs to the text tower; open_clip's other text towers are `text.`.
    pub(super) fn is_text(self, name: &str) -> bool {
        let prefixes: &[&str] = match self {
            Naming::HuggingFace => &["text_model.", "text_projection."],
            Naming::OpenAi => &[
                "token_embedding.",
                "positional_embedding",
                "transformer.",
                "ln_final.",
                "text_projection",
                "text.",
            ],
        };
        prefixes.iter().any(|prefix| name.starts_with(prefix))
    }
}

/// The block that a tensor under `blocks` belongs to.
pub(super) fn block_of(name: &str, blocks: &str) -> Option<usize> {
    name.strip_prefix(blocks)?.strip_prefix('.')?.split('.').next()?.parse().ok()
}
