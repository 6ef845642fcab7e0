-- POST bodies for wrk. The body comes in two halves through the environment; with BENCH_UNIQUE=1 a number that was
-- never used before goes between them, so that no cache can answer. With BENCH_TASK_CALLS=n so many of them each name
-- one task. Prints one JSON line at the end.
local prefix, suffix = os.getenv("BENCH_PREFIX"), os.getenv("BENCH_SUFFIX")
wrk.method = "POST"
wrk.path = os.getenv("BENCH_PATH")
wrk.headers["Content-Type"] = "application/json"
for name, value in string.gmatch(os.getenv("BENCH_HEADERS") or "", "([^\n:]+): ([^\n]*)") do
    wrk.headers[name] = value
end

if os.getenv("BENCH_UNIQUE") == "1" then
    local n = tonumber(os.getenv("BENCH_SEED"))
    local of_one_task = tonumber(os.getenv("BENCH_TASK_CALLS"))
    request = function()
        n = n + 1
        if of_one_task then
            wrk.headers["x-negawatt-task"] = string.format("task-%.0f", math.floor(n / of_one_task))
        end
        return wrk.format(nil, nil, nil, prefix .. string.format("%.0f", n) .. suffix)
    end
else
    wrk.body = prefix .. "0" .. suffix
end

done = function(summary, latency, requests)
    local e = summary.errors
    io.write(string.format(
        'RESULT {"requests":%d,"seconds":%.6f,"p50_ms":%.3f,"p99_ms":%.3f,"connect":%d,"read":%d,"write":%d,"timeout":%d,"status":%d}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
        e.connect, e.read, e.write, e.timeout, e.status))
end
