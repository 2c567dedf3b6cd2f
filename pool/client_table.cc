#include "pool/client_table.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <ctime>

#include "base/result.h"

namespace cube::pool {
namespace {

namespace json = boost::json;

std::string Date(int64_t ms) {
  time_t seconds = static_cast<time_t>(ms / 1000);
  tm parts;
  char text[32];
  if (ms == 0 || localtime_r(&seconds, &parts) == nullptr) return "-";
  strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts);
  return text;
}

}  // namespace

std::string ClientText(const std::string& member, const json::value& value) {
  std::string text;
  if (member.ends_with("_ms") && value.is_int64()) {
    text = Date(value.get_int64());
  } else if (value.is_string()) {
    text = std::string(value.get_string());
  } else if (value.is_double()) {
    text = Format("%g", value.get_double());
  } else {
    text = json::serialize(value);
  }
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) c = '?';
  }
  return text.empty() ? "-" : text;
}

void PrintTable(const json::array& rows, const std::vector<ClientColumn>& columns) {
  std::vector<std::vector<std::string>> table(1);
  for (const ClientColumn& column : columns) table[0].emplace_back(column.heading);
  for (const json::value& row : rows) {
    const json::object* object = row.if_object();
    if (object == nullptr) continue;
    table.emplace_back();
    for (const ClientColumn& column : columns) {
      const json::value* value = object->if_contains(column.member);
      table.back().push_back(value != nullptr ? ClientText(column.member, *value) : "-");
    }
  }
  std::vector<size_t> widths(columns.size());
  for (const auto& row : table) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (const auto& row : table) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) line.append(widths[i] - row[i].size() + 2, ' ');
    }
    printf("%s\n", line.c_str());
  }
}

void PrintMembers(const json::object& object, const std::string& indent) {
  for (const auto& [key, value] : object) {
    std::string name(key);
    if (name == "ok") continue;
    if (const json::object* inner = value.if_object(); inner != nullptr && !inner->empty()) {
      printf("%s%s:\n", indent.c_str(), name.c_str());
      PrintMembers(*inner, indent + "  ");
    } else {
      printf("%s%s: %s\n", indent.c_str(), name.c_str(), ClientText(name, value).c_str());
    }
  }
}

}  // namespace cube::pool
