//! Renders a conversation with the model's own template.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value, context};

use crate::error::Error;
use crate::load::text::Text;

/// The prompt for one user message, by the model's chat template.
pub fn prompt(text: &Text, message: &str) -> Result<String, Error> {
    let Some(template) = &text.chat_template else {
        return Err(Error::Text { what: "the model has no chat template; leave out --chat".into() });
    };
    render(template, text, message)
        .map_err(|e| Error::Text { what: format!("the chat template cannot be used: {e:#}") })
}

fn render(template: &str, text: &Text, message: &str) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    // Templates are written for Python's jinja2 and call its string and list methods.
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    // No `strftime_now`: templates that know it have a fixed date without it, and equal runs give equal prompts.
    environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_template("chat", template)?;
    environment.get_template("chat")?.render(context! {
        messages => [context! { role => "user", content => message }],
        bos_token => text.bos_token.as_deref().unwrap_or(""),
        eos_token => text.eos_token.as_deref().unwrap_or(""),
        add_generation_prompt => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(template: &str) -> Text {
        Text { chat_template: Some(template.into()), bos_token: Some("<s>".into()), ..Text::default() }
    }

    #[test]
    fn a_llama_style_template() {
        let template = "{% set ns = namespace(n=0) %}{% for m in messages %}{{ bos_token if loop.first }}\
                        {{ m['role'] | capitalize }}: {{ m.content.strip() }}<|eot_id|>{% set ns.n = ns.n + 1 %}\
                        {% endfor %}{% if add_generation_prompt %}Assistant: {% endif %}";
        assert_eq!(prompt(&with(template), " hi ").expect("renders"), "<s>User: hi<|eot_id|>Assistant: ");
    }

    /// What templates with thinking and tools do: tools as JSON, messages backwards, string methods, loop control.
    #[test]
    fn a_chatml_template_with_thinking_and_tools() {
        let template = "{%- if tools %}{{ tools | tojson }}{% endif %}\
                        {%- set ns = namespace(last=messages|length - 1) %}\
                        {%- for m in messages[::-1] %}{% if m.content is string and not m.content.startswith('<t>') %}\
                        {%- set ns.last = loop.length - loop.index %}{% break %}{% endif %}{% endfor %}\
                        {%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}\
                        {{ m.content.split('</think>')[-1].lstrip('\n') }}<|im_end|>{{ '\n' }}{% endfor %}\
                        {%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}\
                        {%- if enable_thinking is defined and enable_thinking is false %}none{% endif %}{% endif %}";
        let expected = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n";
        assert_eq!(prompt(&with(template), "so</think>\nhi").expect("renders"), expected);
    }

    #[test]
    fn a_template_may_refuse() {
        let error = prompt(&with("{{ raise_exception('no system role') }}"), "hi").expect_err("refused");
        assert!(error.to_string().contains("no system role"), "{error}");
    }
}
