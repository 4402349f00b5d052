//! CLIP's byte-pair encoding, by the crate `instant-clip-tokenizer`, which has OpenAI's vocabulary inside.

/// Longest prompt, start and end included.
pub const CONTEXT_LENGTH: usize = 77;

pub struct Tokenizer(instant_clip_tokenizer::Tokenizer);

impl Tokenizer {
    pub fn new() -> Tokenizer {
        Tokenizer(instant_clip_tokenizer::Tokenizer::new())
    }

    /// Ids from start of text (49406) to end of text (49407), cut to 77 with the end kept.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut tokens = vec![self.0.start_of_text()];
        self.0.encode(&clean(text), &mut tokens);
        tokens.truncate(CONTEXT_LENGTH - 1);
        tokens.push(self.0.end_of_text());
        tokens.into_iter().map(|token| u32::from(token.to_u16())).collect()
    }
}

impl Default for Tokenizer {
    fn default() -> Self {
        Tokenizer::new()
    }
}

/// White space collapsed, as OpenAI's `whitespace_clean` does before splitting into words.
fn clean(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids by OpenAI's own tokenizer.
    const KNOWN: [(&str, &[u32]); 4] = [
        ("a photo of a aquarium_fish", &[320, 1125, 539, 320, 16814, 318, 2759]),
        ("a photo of a cat", &[320, 1125, 539, 320, 2368]),
        ("  A  PHOTO\tof a\ncat ", &[320, 1125, 539, 320, 2368]),
        ("", &[]),
    ];

    #[test]
    fn known_ids() {
        let tokenizer = Tokenizer::new();
        for (text, ids) in KNOWN {
            let want: Vec<u32> = [&[49406], ids, &[49407]].concat();
            assert_eq!(tokenizer.encode(text), want, "{text:?}");
        }
    }

    #[test]
    fn a_long_text_is_cut_and_keeps_its_end() {
        let ids = Tokenizer::new().encode(&"cat ".repeat(200));
        assert_eq!((ids.len(), ids[75], ids[76]), (77, 2368, 49407));
    }
}
