// The Vercel AI SDK against a gateway: node script.mjs BASE_URL. Prints one JSON object.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

globalThis.AI_SDK_LOG_WARNINGS = false;
const baseURL = process.argv[2];
const apiKey = "unused";
const openai = createOpenAI({ baseURL, apiKey });
const models = {
  chat: openai.chat("chat-1"),
  responses: openai.responses("responses-1"),
  messages: createAnthropic({ baseURL, apiKey })("messages-1"),
  compatible: createOpenAICompatible({ name: "house", baseURL, apiKey, supportsStructuredOutputs: true, includeUsage: true })("chat-1"),
  translated: openai.chat("messages-1"),
};
const weather = tool({
  description: "Tells the weather",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `sunny in ${city}`,
});

const found = {};
for (const [name, model] of Object.entries(models)) {
  const whole = await generateText({ model, prompt: "hello" });
  const streamed = streamText({ model, prompt: "hello" });
  let text = "";
  for await (const word of streamed.textStream) text += word;
  const used = await generateText({ model, prompt: "weather?", tools: { weather }, stopWhen: stepCountIs(3) });
  const person = await generateText({
    model,
    prompt: "who?",
    output: Output.object({ schema: z.object({ name: z.string(), age: z.number() }) }),
  });
  found[name] = {
    text: whole.text,
    usage: whole.usage,
    streamed: text,
    streamedUsage: await streamed.usage,
    tools: used.text,
    steps: used.steps.length,
    object: person.output,
  };
}
console.log(JSON.stringify(found));
