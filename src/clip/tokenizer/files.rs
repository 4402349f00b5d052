//! The tokenizer's files in a Hugging Face folder: they must be CLIP's, since no other is known.
//!
//! transformers reads `tokenizer.json`; where there is none, `vocab.json` and `merges.txt`. Version 5 takes no more from it
//! than vocabulary, merges and added tokens, and builds CLIP's tokenizer around these; version 4 runs the file as it is. Here
//! all files that are there must say what CLIP's do, so that it does not matter which are read.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// SHA-256 of CLIP's vocabulary: a line `token` for each id from 0 on (`tests/make_tokens.py`).
const VOCABULARY: &str = "e30e57b6f1e47616982ef898d8922be24e535b4fa3d0110477b3a6f02ebbae7d";
/// Of its merges: a line `first second` each.
const MERGES: &str = "d308b7377a8ceaa9707a21614fe8c831b9196e197b7aeb69833359362907af02";

const SPECIAL: [(&str, u64); 2] = [("<|startoftext|>", 49406), ("<|endoftext|>", 49407)];

/// Checks the files beside the weights; the tokens that were added to CLIP's.
///
/// # Errors
/// A file that cannot be read, or that asks for another tokenizer than CLIP's, with its field.
pub fn check(weights: &Path) -> Result<Vec<String>> {
    let mut added = BTreeSet::new();
    let mut check = |name: &str, check: fn(&str, &mut BTreeSet<String>) -> Result<()>| {
        let path = weights.with_file_name(name);
        if !path.is_file() {
            return Ok(());
        }
        let mut read = || check(&std::fs::read_to_string(&path)?, &mut added);
        read().with_context(|| format!("reading {}", path.display()))
    };
    check("tokenizer.json", whole)?;
    check("vocab.json", |text, _| {
        let vocabulary: Value = json(text)?;
        is_clips_vocabulary(&vocabulary)
    })?;
    check("merges.txt", |text, _| {
        let lines = text.lines().filter(|line| !line.starts_with("#version") && !line.is_empty());
        is_clips_merges(lines.map(str::to_string))
    })?;
    check("tokenizer_config.json", config)?;
    check("special_tokens_map.json", |text, added| specials(&json(text)?, added))?;
    check("added_tokens.json", |text, added| {
        let tokens: Value = json(text)?;
        added.extend(tokens.as_object().context("not a JSON object")?.keys().cloned());
        Ok(())
    })?;
    check("config.json", |text, _| end(&json(text)?))?;
    added.retain(|token| SPECIAL.iter().all(|(special, _)| special != token));
    Ok(added.into_iter().collect())
}

fn json(text: &str) -> Result<Value> {
    serde_json::from_str(text).context("not JSON")
}

/// `tokenizer.json`
fn whole(text: &str, added: &mut BTreeSet<String>) -> Result<()> {
    let file = json(text)?;
    let model = &file["model"];
    let is = |field: &str, value: &Value, want: &[Value]| {
        ensure!(want.contains(value), "{field} is {value}; CLIP's is {}", want[0]);
        Ok(())
    };
    is("model.type", &model["type"], &["BPE".into(), Value::Null])?;
    is("model.end_of_word_suffix", &model["end_of_word_suffix"], &["</w>".into()])?;
    is("model.continuing_subword_prefix", &model["continuing_subword_prefix"], &["".into(), Value::Null])?;
    is("model.dropout", &model["dropout"], &[Value::Null, 0.0.into()])?;
    for off in ["byte_fallback", "ignore_merges"] {
        is(&format!("model.{off}"), &model[off], &[false.into(), Value::Null])?;
    }
    is_clips_vocabulary(&model["vocab"]).context("model.vocab")?;
    let merge = |merge: &Value| match (merge.as_str(), merge.as_array().map(Vec::as_slice)) {
        (Some(merge), _) => Some(merge.to_string()),
        (_, Some([first, second])) => Some(format!("{} {}", first.as_str()?, second.as_str()?)),
        _ => None,
    };
    let merges = model["merges"].as_array().context("model.merges is no list")?;
    let merges = merges.iter().map(|each| merge(each).with_context(|| format!("model.merges has {each}")));
    is_clips_merges(merges.collect::<Result<Vec<_>>>()?.into_iter()).context("model.merges")?;

    let steps = |step: &Value, list: &str| -> Vec<Value> {
        step[list].as_array().cloned().unwrap_or_else(|| vec![step.clone()])
    };
    let types = |steps: &[Value]| {
        steps.iter().map(|s| s["type"].as_str().unwrap_or_default().to_string()).collect::<Vec<_>>()
    };
    let normalizers = steps(&file["normalizer"], "normalizers");
    let collapses = |step: &Value| step["pattern"]["Regex"] == r"\s+" && step["content"] == " ";
    ensure!(
        types(&normalizers) == ["NFC", "Replace", "Lowercase"] && collapses(&normalizers[1]),
        "normalizer is {}; CLIP's is NFC, white space to one space, lower case",
        file["normalizer"]
    );
    let splits = steps(&file["pre_tokenizer"], "pretokenizers");
    let pattern = |step: &Value| {
        let pattern = step["pattern"]["Regex"].as_str().unwrap_or_default();
        let own = pattern.strip_prefix(r"<\|startoftext\|>|<\|endoftext\|>|").unwrap_or(pattern);
        own == r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
            && step["behavior"] == "Removed"
            && step["invert"] == true
    };
    ensure!(
        types(&splits) == ["Split", "ByteLevel"]
            && pattern(&splits[0])
            && splits[1]["add_prefix_space"] == false,
        "pre_tokenizer is {}; CLIP's splits into words, then bytes",
        file["pre_tokenizer"]
    );
    let ends = &file["post_processor"];
    let named = |field: &str, (token, id): (&str, u64)| ends[field] == serde_json::json!([token, id]);
    ensure!(
        ends["type"] == "RobertaProcessing" && named("cls", SPECIAL[0]) && named("sep", SPECIAL[1]),
        "post_processor is {ends}; CLIP's puts {SPECIAL:?} around a text"
    );
    tokens(&file["added_tokens"], added)
}

/// `tokenizer_config.json`
fn config(text: &str, added: &mut BTreeSet<String>) -> Result<()> {
    let file = json(text)?;
    if let Some(class) = file["tokenizer_class"].as_str() {
        let clips = ["CLIPTokenizer", "CLIPTokenizerFast", "TokenizersBackend", "PreTrainedTokenizerFast"];
        ensure!(clips.contains(&class), "tokenizer_class is {class}; CLIPTokenizer is known");
    }
    for (field, clips) in
        [("do_lower_case", true), ("add_prefix_space", false), ("split_special_tokens", false)]
    {
        let value = &file[field];
        ensure!(value.is_null() || *value == clips, "{field} is {value}; CLIP's is {clips}");
    }
    specials(&file, added)?;
    let decoder = file["added_tokens_decoder"].as_object();
    let list = decoder.into_iter().flatten().map(|(id, token)| {
        let mut token = token.clone();
        token["id"] = id.parse::<u64>().unwrap_or_default().into();
        token
    });
    tokens(&list.collect(), added)
}

/// Special tokens, where a file names them. One for padding becomes a token of its own in any text, `!` in some models.
fn specials(file: &Value, added: &mut BTreeSet<String>) -> Result<()> {
    let content = |value: &Value| value.as_str().or(value["content"].as_str()).map(str::to_string);
    for (field, (want, _)) in [("bos_token", SPECIAL[0]), ("eos_token", SPECIAL[1])] {
        let value = &file[field];
        let is_clips = value.is_null() || content(value).as_deref() == Some(want);
        ensure!(is_clips, "{field} is {value}; CLIP's is {want}");
    }
    added.extend(
        ["pad_token", "unk_token", "sep_token", "cls_token", "mask_token"]
            .iter()
            .filter_map(|f| content(&file[f])),
    );
    added.extend(file["additional_special_tokens"].as_array().into_iter().flatten().filter_map(content));
    Ok(())
}

/// Tokens beside the vocabulary: its own special ones under their numbers, and others.
fn tokens(list: &Value, added: &mut BTreeSet<String>) -> Result<()> {
    for token in list.as_array().into_iter().flatten() {
        let (content, id) = (token["content"].as_str().context("a token without content")?, &token["id"]);
        if let Some((_, own)) = SPECIAL.iter().find(|(special, _)| *special == content) {
            ensure!(id == own, "the token {content} has id {id}; CLIP's is {own}");
        }
        added.insert(content.to_string());
    }
    Ok(())
}

/// `config.json`: where the features of a text are taken. 2 stands for the largest id, as transformers has it.
fn end(config: &Value) -> Result<()> {
    let text =
        config.get("text_config_dict").filter(|section| !section.is_null()).unwrap_or(&config["text_config"]);
    let end = &text["eos_token_id"];
    let clips = end.is_null() || *end == 2 || *end == SPECIAL[1].1;
    ensure!(clips, "text_config.eos_token_id is {end}; CLIP's is {}", SPECIAL[1].1);
    Ok(())
}

fn is_clips_vocabulary(vocabulary: &Value) -> Result<()> {
    let tokens = vocabulary.as_object().context("it is no JSON object")?;
    let mut by_id: Vec<(u64, &String)> = Vec::with_capacity(tokens.len());
    for (token, id) in tokens {
        by_id.push((id.as_u64().with_context(|| format!("{token} has id {id}"))?, token));
    }
    by_id.sort_unstable();
    let whole = by_id.iter().zip(0..).all(|((id, _), want)| *id == want);
    let lines = by_id.iter().map(|(_, token)| token.to_string());
    if !whole || digest(lines) != VOCABULARY {
        bail!("its vocabulary of {} tokens is not CLIP's of 49408; no other is known", tokens.len());
    }
    Ok(())
}

fn is_clips_merges(merges: impl Iterator<Item = String>) -> Result<()> {
    // As transformers 4 wrote them, the list may go on behind those that count.
    let merges: Vec<String> = merges.collect();
    ensure!(
        digest(merges.iter().cloned()) == MERGES,
        "its {} merges are not CLIP's 48894; no others are known",
        merges.len()
    );
    Ok(())
}

fn digest(lines: impl Iterator<Item = String>) -> String {
    let mut digest = Sha256::new();
    lines.for_each(|line| digest.update(format!("{line}\n")));
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
