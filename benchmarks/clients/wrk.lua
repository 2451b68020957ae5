-- The far limit: wrk, written in C, which sends new users as fast as it can and looks at no answer.
local number = 0
local body = '{"email":"user%07d@example.edu","firstName":"Example","lastName":"User %07d","department":"0100",'
  .. '"externalId":"%07d","status":"active","products":["scheduling","curriculum"],"roles":["example-viewer"],'
  .. '"disableRegistrationMail":true}'
local headers = { ["Authorization"] = "Bearer benchmark", ["Content-Type"] = "application/json" }

request = function()
  number = number + 1
  return wrk.format("POST", "/school/users", headers, body:format(number, number, number))
end
