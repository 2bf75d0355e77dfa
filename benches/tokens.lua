-- For wrk: each request with the next token of a file. Arguments: the file, and how many of its tokens are used.
local requests, next_request = {}, 0

function init(arguments)
  for token in io.lines(arguments[1]) do
    if #requests == tonumber(arguments[2]) then break end
    requests[#requests + 1] = wrk.format("GET", "/", { Authorization = "Bearer " .. token })
  end
end

function request()
  next_request = next_request % #requests + 1
  return requests[next_request]
end
