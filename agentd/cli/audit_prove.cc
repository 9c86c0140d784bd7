// certgate audit verify, complete, prove, pack, check: what a doubter asks.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <iostream>

#include "agentd/cli/audit_verbs.h"
#include "agentd/log_verify.h"
#include "agentd/pack.h"
#include "agentd/proof.h"

namespace certgate::agentd::cli {
namespace {

constexpr size_t kMaxFileBytes = 8u << 20;

Result<std::string> read_whole(const std::string& path) {
  std::string bytes;
  std::ifstream file;
  std::istream* in = &std::cin;
  if (path != "-") {
    file.open(path, std::ios::binary);
    if (!file) return fail(path + ": it cannot be opened");
    in = &file;
  }
  char buffer[65536];
  while (in->read(buffer, sizeof buffer) || in->gcount() > 0) {
    bytes.append(buffer, static_cast<size_t>(in->gcount()));
    if (bytes.size() > kMaxFileBytes) return fail(path + ": larger than 8 MiB");
  }
  return bytes;
}

// A key as text, or the name of a file that holds it.
Result<std::string> key_text(const std::string& given) {
  if (given.find('+') != std::string::npos) return given;
  CG_TRY(std::string text, read_whole(given));
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

std::string verdict_line(const char* name, const Verdict& verdict) {
  const std::string start =
      std::string(name) + std::string(11 - std::string(name).size(), ' ') + verdict.word;
  return start + (verdict.detail.empty() ? "" : ": " + escape(verdict.detail));
}

JsonObject verdict_json(const Verdict& verdict) {
  JsonObject object;
  object.text("verdict", verdict.word).text("detail", verdict.detail);
  return object;
}

Result<OutsideView> outside_view(const Options& options) {
  OutsideView outside;
  if (options.has("checkpoint")) {
    CG_TRY(outside.checkpoint, read_whole(options.value("checkpoint")));
  }
  if (const auto given = options.values.find("witness"); given != options.values.end()) {
    for (const std::string& one : given->second) {
      CG_TRY(const std::string text, key_text(one));
      CG_TRY(WitnessKey key, WitnessKey::parse(text));
      outside.keys.push_back(std::move(key));
    }
  }
  return outside;
}

Result<VerifyReport> verify_for(const Options& options) {
  CG_TRY(const OutsideView outside, outside_view(options));
  std::string key;
  if (options.has("key")) {
    CG_TRY(key, key_text(options.value("key")));
  }
  return verify_log(options.state, key, outside);
}

void print_report(const VerifyReport& report, Format format) {
  const std::string root = base64_encode(report.root.data(), report.root.size());
  if (format == Format::kJson) {
    JsonObject object;
    object.text("verdict", report.good ? "yes" : "no").number("records", report.records);
    object.text("root", root).text("where", report.where).text("what", report.what);
    object.list("notes", report.notes).object("unaltered", verdict_json(report.unaltered));
    object.object("complete", verdict_json(report.complete))
        .object("witnessed", verdict_json(report.witnessed));
    std::cout << object.str() << '\n';
    return;
  }
  for (const std::string& note : report.notes) std::cout << "note: " << escape(note) << '\n';
  if (report.good) {
    std::cout << "yes: " << report.records << " records, root " << root << '\n';
  } else {
    std::cout << "no: " << escape(report.where) << ": " << escape(report.what) << '\n';
  }
  std::cout << verdict_line("unaltered", report.unaltered) << '\n'
            << verdict_line("complete", report.complete) << '\n'
            << verdict_line("witnessed", report.witnessed) << '\n';
}

int said(int status) { return std::cout.flush() ? status : trouble(fail("the output was closed")); }

int good(const Options& options, const std::string& what, const Checkpoint& under,
         const JsonObject& more) {
  if (options.format == Format::kJson) {
    JsonObject object;
    object.text("verdict", "yes")
        .text("what", what)
        .text("log", under.origin)
        .number("size", under.size);
    std::cout << object.object("content", more).str() << '\n';
  } else {
    std::cout << "yes: " << escape(what) << ", in the log " << escape(under.origin) << " of "
              << under.size << " records\n";
  }
  return said(0);
}

int bad(const Options& options, const Error& error) {
  if (options.format == Format::kJson) {
    JsonObject object;
    std::cout << object.text("verdict", "no").text("what", error.what).str() << '\n';
  } else {
    std::cout << "no: " << escape(error.what) << '\n';
  }
  return said(kExitNo);
}

int check_proof(const Options& options, const std::string& text, const VerifierKey& key) {
  const Result<TlogProof> proof = TlogProof::parse(text);
  if (!proof) return bad(options, proof.error());
  std::string entry = proof->extra;
  if (options.has("record")) {
    Result<std::string> bytes = read_whole(options.value("record"));
    if (!bytes) return trouble(bytes.error());
    entry = std::move(*bytes);
  }
  if (entry.empty()) return trouble(fail("the proof does not hold its record: --record FILE"));
  const Result<Checkpoint> under = proof->check(key, entry);
  if (!under) return bad(options, under.error());
  const Result<kernel::Record> record =
      kernel::decode_record(reinterpret_cast<const uint8_t*>(entry.data()), entry.size());
  const std::string what = "record " + std::to_string(proof->index);
  if (!record)
    return good(options, what + " (not one of certgate's records)", *under, JsonObject());
  if (options.format == Format::kText) std::cout << record_text(*record, record->error) << '\n';
  return good(options, what, *under, record_json(*record, record->error));
}

int check_consistency(const Options& options, const std::string& text, const VerifierKey& key) {
  if (!options.has("old"))
    return trouble(fail("a consistency proof needs --old CHECKPOINT, the one you hold"));
  const Result<std::string> old = read_whole(options.value("old"));
  if (!old) return trouble(old.error());
  const Result<ConsistencyProof> proof = ConsistencyProof::parse(text);
  if (!proof) return bad(options, proof.error());
  const Result<Checkpoint> under = proof->check(key, *old);
  if (!under) return bad(options, under.error());
  return good(options, "the first " + std::to_string(proof->old_size) + " records are unchanged",
              *under, JsonObject());
}

int check_packed(const Options& options, const std::string& text, const VerifierKey& key) {
  const Result<PackContent> content = check_pack(text, key);
  if (!content) return bad(options, content.error());
  JsonObject more;
  more.list("subjects", content->subjects).text("report", content->report);
  if (options.format == Format::kText) std::cout << content->report;
  return good(options, std::to_string(content->records) + " records", content->checkpoint, more);
}

}  // namespace

int audit_verify(const Options& options) {
  const Result<VerifyReport> report = verify_for(options);
  if (!report) return trouble(report.error());
  print_report(*report, options.format);
  // Who names a witness wants its word: a log that lost it must not pass for one that has it.
  const bool unwitnessed = options.has("witness") && report->witnessed.word != "yes";
  return said(report->good && !unwitnessed ? 0 : kExitNo);
}

int audit_complete(const Options& options) {
  const Result<VerifyReport> report = verify_log(options.state);
  if (!report) return trouble(report.error());
  if (options.format == Format::kJson) {
    JsonObject object = verdict_json(report->complete);
    std::cout << object.list("notes", report->notes)
                     .object("unaltered", verdict_json(report->unaltered))
                     .str()
              << '\n';
  } else {
    for (const std::string& note : report->notes) std::cout << "note: " << escape(note) << '\n';
    if (report->unaltered.word != "yes")
      std::cout << verdict_line("unaltered", report->unaltered) << '\n';
    std::cout << verdict_line("complete", report->complete) << '\n';
  }
  return said(report->complete.word == "yes" || report->complete.word == "so far" ? 0 : kExitNo);
}

int audit_prove(const Options& options) {
  if (options.args.empty() == !options.has("since"))
    return trouble(fail("prove what? an ID, or --since CHECKPOINT"));
  Result<Index> index = open_index(options);
  if (!index) return trouble(index.error());
  auto made = [&]() -> Result<std::string> {
    if (options.args.empty()) {
      CG_TRY(const std::string note, read_whole(options.value("since")));
      CG_TRY(const Checkpoint old, open_cosigned(note, index->log().key()));
      CG_TRY(const ConsistencyProof proof, prove_consistency(index->log(), old.size));
      if (const auto holds = proof.check(index->log().key(), note); !holds)
        return fail("this log does not continue that checkpoint: " + holds.error().what);
      return proof.text();
    }
    CG_TRY(const uint64_t pos, index->find(options.args[0]));
    if (!index->is_sealed(pos))
      return fail("the record is not sealed yet: it has no proof; try again in a second");
    CG_TRY(const TlogProof proof, prove_inclusion(index->log(), pos));
    return proof.text();
  }();
  if (!made) return trouble(made.error());
  std::cout << *made;
  return said(0);
}

int audit_pack(const Options& options) {
  Result<Index> index = open_index(options);
  if (!index) return trouble(index.error());
  const Result<std::string> pack = make_pack(*index, options.args);
  if (!pack) return trouble(pack.error());
  const std::string path = options.value("output", "-");
  if (path == "-") {
    std::cout << *pack;
    return said(0);
  }
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << *pack;
  if (!file.flush()) return trouble(fail(path + ": it cannot be written"));
  std::cout << escape(path) << ": " << pack->size()
            << " bytes; check it with: certgate audit check " << escape(path) << " --key KEY\n";
  return said(0);
}

int audit_check(const Options& options) {
  if (!options.has("key"))
    return trouble(fail(
        "--key KEY: the log's key as you kept it; one that comes with the proof proves nothing"));
  const Result<std::string> text = read_whole(options.args[0]);
  if (!text) return trouble(text.error());
  const Result<std::string> line = key_text(options.value("key"));
  if (!line) return trouble(line.error());
  const Result<VerifierKey> key = VerifierKey::parse(*line);
  if (!key) return trouble(key.error());
  if (text->starts_with("c2sp.org/tlog-proof")) return check_proof(options, *text, *key);
  if (text->starts_with("old ")) return check_consistency(options, *text, *key);
  if (text->starts_with("certgate-pack@")) return check_packed(options, *text, *key);
  return bad(options, fail("neither a tlog-proof, nor a consistency proof, nor a pack"));
}

}  // namespace certgate::agentd::cli
