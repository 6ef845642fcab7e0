// The Vercel AI SDK in each of its protocols against a provider of each: node every.mjs BASE_URL. Prints one JSON object.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

globalThis.AI_SDK_LOG_WARNINGS = false;
const settings = { baseURL: process.argv[2], apiKey: "unused" };
const openai = createOpenAI(settings);
const callers = {
  chat: openai.chat,
  responses: openai.responses,
  messages: createAnthropic(settings),
  compatible: createOpenAICompatible({ name: "house", ...settings, supportsStructuredOutputs: true, includeUsage: true }),
};
const weather = tool({
  description: "Tells the weather",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `sunny in ${city}`,
});
const person = Output.object({ schema: z.object({ name: z.string(), age: z.number() }) });
const picture = { type: "image", image: Buffer.from("iVBORw0KGgo=", "base64"), mediaType: "image/png" };

async function streamed(options) {
  const stream = streamText(options);
  let text = "";
  for await (const part of stream.fullStream) {
    if (part.type === "error") throw part.error;
    if (part.type === "text-delta") text += part.text;
  }
  return { text, output: (await stream.totalUsage).outputTokens };
}

async function streamedObject(options) {
  const stream = streamText({ ...options, output: person });
  for await (const _ of stream.partialOutputStream);
  return stream.output;
}

const found = {};
for (const [caller, make] of Object.entries(callers)) {
  for (const provider of ["chat-1", "responses-1", "messages-1"]) {
    const model = make(provider);
    const look = [{ role: "user", content: [{ type: "text", text: "look" }, picture] }];
    const forced = await generateText({ model, prompt: "weather?", tools: { weather }, toolChoice: "required" });
    found[`${caller} to ${provider}`] = {
      text: (await generateText({ model, system: "Be brief.", prompt: "hello", maxOutputTokens: 50 })).text,
      tools: await streamed({ model, prompt: "weather?", tools: { weather }, stopWhen: stepCountIs(3) }),
      forced: forced.toolCalls.map((call) => call.input),
      object: await streamedObject({ model, prompt: "who?" }),
      picture: (await generateText({ model, messages: look })).text,
    };
  }
}
const { embeddings } = await embedMany({ model: openai.embedding("all-1"), values: ["a", "bcd"] });
console.log(JSON.stringify({ found, embeddings }));
