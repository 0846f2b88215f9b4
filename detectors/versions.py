"""The columns that say on what an agent runs: model, prompt, tools, policy and its own version."""

VERSIONS = (
    *("model_provider", "model_id", "model_version", "prompt_hash", "prompt_template_version"),
    *("tool_registry_version", "policy_version", "agent_version"),
)
