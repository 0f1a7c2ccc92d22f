-- Closes changes. ARGV: their ids.
for _, id in ipairs(ARGV) do
  close(id)
end
