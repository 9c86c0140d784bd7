// certgate audit export: records in the forms that other people's tools read.
#include <fstream>
#include <iostream>

#include "agentd/cli/audit_verbs.h"
#include "agentd/export/exporter.h"

namespace certgate::agentd::cli {
namespace {

Status export_rows(Index& index, const Options& options, Exporter& exporter) {
  CG_TRY(const Condition where, filters(options, index));
  CG_TRY(const uint64_t limit, count_option(options, "limit", INT64_MAX, INT64_MAX));
  CG_TRY(
      Statement rows,
      index.db().prepare("SELECT r.pos, (SELECT o.pos FROM record o WHERE o.of = r.pos), r.source "
                         "FROM record r WHERE " +
                         where.sql + " ORDER BY r.pos LIMIT ?"));
  CG_CHECK(where.bind(rows, 1));
  CG_CHECK(rows.bind(static_cast<int>(where.values.size()) + 1, static_cast<int64_t>(limit)));
  for (;;) {
    CG_TRY(const bool more, rows.step());
    if (!more) return exporter.end();
    const auto pos = static_cast<uint64_t>(rows.number(0));
    CG_TRY(const kernel::Record record, index.record(pos));
    ExportItem item{pos, record, record.error, {}, std::nullopt};
    if (!rows.null(1)) {
      CG_TRY(const kernel::Record outcome, index.record(static_cast<uint64_t>(rows.number(1))));
      item.error = outcome.error;
    }
    if (index.is_sealed(pos)) {
      CG_TRY(const std::string bytes, index.bytes(pos));
      item.leaf = kernel::leaf_hash(bytes.data(), bytes.size());
    }
    if (!rows.null(2)) item.source = static_cast<uint64_t>(rows.number(2));
    exporter.add(item);
  }
}

}  // namespace

int audit_export(const Options& options) {
  if (!options.has("format")) return trouble(fail("--format F: one of " + export_formats()));
  if (options.has("last")) return trouble(fail("--last is not for export"));
  std::ofstream file;
  if (options.has("output")) {
    file.open(options.value("output"), std::ios::binary | std::ios::trunc);
    if (!file) return trouble(fail(options.value("output") + ": it cannot be written"));
  }
  std::ostream& out = options.has("output") ? file : std::cout;
  Result<Index> index = open_index(options);
  if (!index) return trouble(index.error());
  Result<std::unique_ptr<Exporter>> exporter =
      make_exporter(options.value("format"), index->log().key().name, out);
  if (!exporter) return trouble(exporter.error());
  if (const Status done = export_rows(*index, options, **exporter); !done)
    return trouble(done.error());
  return out.flush() ? 0 : trouble(fail("the output was closed"));
}

}  // namespace certgate::agentd::cli
