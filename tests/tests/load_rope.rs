//! Rotary tables against their formulas in f64, for every kind and for far positions.

use serde_json::json;
use tcc::arch::BuildOptions;
use tcc_tests::oracle::{self, open};
use tcc_tests::patch::Copy;

/// The rotary tables of a copy of the longrope fixture with the given configuration keys.
fn rope_tables(copy: &Copy, ctx: usize) -> [Vec<f32>; 2] {
    let options = BuildOptions { ctx: Some(ctx), ..BuildOptions::default() };
    let model = open(copy.path());
    ["rope.cos", "rope.sin"].map(|name| oracle::weight(&model, &options, name))
}

/// N4: longrope takes its long factors and its gain from the configured length, never from the context asked for.
#[test]
fn longrope_follows_the_configured_length() {
    let copy = Copy::of("qwen3-dense-longrope");
    let (theta, half) = (1e6f64, 16);
    for (max_position, original, key) in [(256, 256, "short_factor"), (512, 64, "long_factor")] {
        let mut factors = Vec::new();
        copy.edit_config(|config| {
            config["max_position_embeddings"] = json!(max_position);
            config["rope_parameters"]["original_max_position_embeddings"] = json!(original);
            factors = config["rope_parameters"][key].as_array().expect("a list").clone();
        });
        let stretch = f64::from(max_position) / f64::from(original);
        let gain = if stretch > 1.0 { (1.0 + stretch.ln() / f64::from(original).ln()).sqrt() } else { 1.0 };
        let [cos, sin] = rope_tables(&copy, 32);
        for (at, (cos, sin)) in cos.iter().zip(&sin).enumerate() {
            let (pos, i) = ((at / half) as f64, at % half);
            let factor = factors[i].as_f64().expect("a number");
            let angle = pos / theta.powf(i as f64 / half as f64) / factor;
            assert!((f64::from(*cos) - angle.cos() * gain).abs() < 4e-6, "{key} at {at}");
            assert!((f64::from(*sin) - angle.sin() * gain).abs() < 4e-6, "{key} at {at}");
        }
    }
}

/// N4: Llama 3's three bands of wavelengths, and linear scaling.
#[test]
fn llama3_and_linear_scale_frequencies() {
    let copy = Copy::of("llama-packed-llama3rope");
    let [_, sin] = rope_tables(&copy, 2);
    for i in 0..16 {
        let inv_freq = 500_000f64.powf(-(i as f64) / 16.0);
        let (wavelength, original) = (std::f64::consts::TAU / inv_freq, 32.0);
        let want = if wavelength > original {
            inv_freq / 8.0
        } else if wavelength < original / 4.0 {
            inv_freq
        } else {
            let smooth = (original / wavelength - 1.0) / 3.0;
            (1.0 - smooth) * inv_freq / 8.0 + smooth * inv_freq
        };
        assert!((f64::from(sin[16 + i]) - want.sin()).abs() < 1e-6, "frequency {i}");
    }
    let copy = Copy::of("llama-packed-bias-linearrope");
    let [linear, _] = rope_tables(&copy, 9);
    copy.edit_config(|config| config["rope_parameters"] = json!({"rope_theta": 500_000.0, "rope_type": "default"}));
    let [plain, _] = rope_tables(&copy, 5);
    assert_eq!(linear[8 * 16..], plain[4 * 16..], "position 8 over factor 2 is position 4");
}

/// N5: at thousands of positions the angle is the f32 product, which differs from the exact one visibly.
#[test]
fn far_positions_use_the_f32_angle() {
    let copy = Copy::of("llama-packed-dupkey");
    copy.set("max_position_embeddings", 8192);
    let [cos, sin] = rope_tables(&copy, 8192);
    let mut drift = 0.0f64;
    for pos in [4096usize, 5000, 8191] {
        for i in 0..16 {
            let p = 500_000f64.powf(f64::from(i as f32 / 16.0)) as f32;
            let angle = f64::from(pos as f32 * (1.0 / p));
            let at = pos * 16 + i;
            assert!((f64::from(cos[at]) - angle.cos()).abs() <= 6e-8, "cos at {pos}, {i}");
            assert!((f64::from(sin[at]) - angle.sin()).abs() <= 6e-8, "sin at {pos}, {i}");
            let exact = pos as f64 / 500_000f64.powf(i as f64 / 16.0);
            drift = drift.max((f64::from(cos[at]) - exact.cos()).abs());
        }
    }
    assert!(drift > 1e-5, "the two rules are told apart: {drift}");
}

/// C2: where both spellings are present, the one that names a kind counts.
#[test]
fn a_base_alone_does_not_hide_the_old_spelling() {
    let copy = Copy::of("llama-packed-llama3rope");
    let want = rope_tables(&copy, 64);
    copy.edit_config(|config| {
        let theta = config["rope_parameters"]["rope_theta"].take();
        let scaling = config.insert("rope_parameters".into(), json!({"rope_theta": theta})).expect("the new spelling");
        config.insert("rope_scaling".into(), scaling);
    });
    assert!(rope_tables(&copy, 64) == want);
}
