// Lists of sandboxes: filters, order, pages.
#include <algorithm>

#include "api/date_text.h"
#include "api/page.h"
#include "api/sandbox_answers.h"
#include "api/sandbox_api.h"

namespace cube::api {
namespace {

using pool::Fault;
using pool::Outcome;
using pool::Refuse;

using Metadata = std::vector<std::pair<std::string, std::string>>;

// A query string within a field of the query, in which names and values are escaped once more.
Outcome<Metadata> MetadataOf(const Call& call) {
  auto text = call.Query("metadata");
  if (!text) return Metadata();
  auto fields = ParseQuery(*text);
  if (!fields) return Refuse(Fault::kInvalid, "\"metadata\" is not a query string");
  Metadata all;
  for (const auto& [name, value] : *fields) {
    auto key = PercentDecode(name, false), word = PercentDecode(value, false);
    if (!key || !word) return Refuse(Fault::kInvalid, "\"metadata\" is not a query string");
    all.emplace_back(std::move(*key), std::move(*word));
  }
  return all;
}

bool HasAll(const std::map<std::string, std::string>& metadata, const Metadata& wanted) {
  return std::all_of(wanted.begin(), wanted.end(), [&](const auto& each) {
    auto found = metadata.find(each.first);
    return found != metadata.end() && found->second == each.second;
  });
}

struct States {
  bool running = true, paused = true;
};

Outcome<States> StatesOf(const Call& call) {
  States states;
  auto text = call.Query("state");
  if (!text || text->empty()) return states;
  states = {false, false};
  for (size_t place = 0; place <= text->size();) {
    size_t end = std::min(text->find(',', place), text->size());
    std::string word = text->substr(place, end - place);
    if (word == "running") {
      states.running = true;
    } else if (word == "paused") {
      states.paused = true;
    } else {
      return Refuse(Fault::kInvalid, "\"state\" has \"%.64s\", which is not running or paused",
                    word.c_str());
    }
    place = end + 1;
  }
  return states;
}

// By start, then by id: the latest first.
bool IsLater(const pool::SandboxRecord* a, const pool::SandboxRecord* b) {
  if (a->created_ms != b->created_ms) return a->created_ms > b->created_ms;
  return a->id > b->id;
}

}  // namespace

// The older list: all that run.
Task<Answer> SandboxApi::List(Shared call) {
  POOL_CO_ASSIGN(Metadata metadata, MetadataOf(*call));
  std::vector<const pool::SandboxRecord*> found;
  for (const auto& [id, sandbox] : node_->sandboxes()) {
    const pool::SandboxRecord& record = sandbox->record();
    if (IsShown(record.state) && !IsPaused(record.state) && HasAll(record.metadata, metadata)) {
      found.push_back(&record);
    }
  }
  std::sort(found.begin(), found.end(), IsLater);
  JsonWriter json;
  json.BeginArray();
  for (const auto* record : found) {
    AddListed(*record, SandboxNotes::Parse(record->annotation), false, domain(), &json);
  }
  co_return Reply::Json(200, json.EndArray().text());
}

Task<Answer> SandboxApi::ListVersionTwo(Shared call) {
  POOL_CO_ASSIGN(Metadata metadata, MetadataOf(*call));
  POOL_CO_ASSIGN(States states, StatesOf(*call));
  POOL_CO_ASSIGN(Page page, Page::Of(*call));
  POOL_CO_ASSIGN(std::string order, call->QueryWord("order", {"desc", "asc"}));
  std::optional<int64_t> after;
  if (auto text = call->Query("startedAfter")) {
    after = ParseDate(*text);
    if (!after) co_return Refuse(Fault::kInvalid, "\"startedAfter\" is not a date of RFC 3339");
  }
  std::optional<std::string> of_template;
  if (auto text = call->Query("template"); text && !text->empty()) {
    POOL_CO_ASSIGN(TemplateName name, ParseTemplateName(*text));
    if (!name.tag.empty()) co_return Refuse(Fault::kInvalid, "\"template\" has a tag");
    of_template = name.name;
  }
  std::vector<const pool::SandboxRecord*> found;
  size_t running = 0;
  bool ascending = order == "asc";
  for (const auto& [id, sandbox] : node_->sandboxes()) {
    const pool::SandboxRecord& record = sandbox->record();
    if (!IsShown(record.state) || !HasAll(record.metadata, metadata)) continue;
    if (after && record.created_ms < *after) continue;
    bool paused = IsPaused(record.state);
    if (paused ? !states.paused : !states.running) continue;
    if (of_template) {
      SandboxNotes notes = SandboxNotes::Parse(record.annotation);
      const std::string& name =
          notes.template_id.empty() ? record.template_name : notes.template_id;
      if (name != *of_template && notes.alias != *of_template) continue;
    }
    running += !paused;
    if (page.IsPast(record.created_ms, record.id, ascending)) found.push_back(&record);
  }
  // What is not on the page need not be in order.
  size_t shown = std::min(page.limit(), found.size());
  std::partial_sort(
      found.begin(), found.begin() + static_cast<ptrdiff_t>(shown), found.end(),
      [&](const auto* a, const auto* b) { return ascending ? IsLater(b, a) : IsLater(a, b); });
  JsonWriter json;
  json.BeginArray();
  for (size_t i = 0; i < shown; ++i) {
    AddListed(*found[i], SandboxNotes::Parse(found[i]->annotation), false, domain(), &json);
  }
  Reply reply = Reply::Json(200, json.EndArray().text());
  if (shown < found.size()) {
    reply.headers.emplace_back("X-Next-Token",
                               Page::Token(found[shown - 1]->created_ms, found[shown - 1]->id));
  }
  if (states.running) reply.headers.emplace_back("X-Total-Running", std::to_string(running));
  co_return reply;
}

}  // namespace cube::api
