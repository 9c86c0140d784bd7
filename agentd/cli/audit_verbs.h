// The subverbs of `certgate audit`; their table is in audit.cc.
#pragma once

#include "agentd/cli/audit_io.h"

namespace certgate::agentd::cli {

// audit_list.cc
int audit_list(const Options& options);
int audit_tail(const Options& options);
int audit_reads(const Options& options);
int audit_runs(const Options& options);
int audit_timeline(const Options& options);
// audit_sql.cc
int audit_sql(const Options& options);
int audit_reindex(const Options& options);
// audit_trace.cc
int audit_why(const Options& options);
int audit_impact(const Options& options);
int audit_path(const Options& options);
// audit_shape.cc
int audit_tree(const Options& options);
int audit_diff(const Options& options);
// audit_prove.cc
int audit_prove(const Options& options);
int audit_check(const Options& options);
int audit_pack(const Options& options);
int audit_verify(const Options& options);
int audit_complete(const Options& options);
// audit_recheck.cc
int audit_recheck(const Options& options);
// audit_export.cc
int audit_export(const Options& options);

}  // namespace certgate::agentd::cli
