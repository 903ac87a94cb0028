package server

import (
	"strings"

	"millrace/pkg/api/apiconnect"
)

// who is a set of kinds of callers.
type who uint8

const (
	stranger  who = 1 << iota // without a certificate: what it holds, a token or a code, is in the request
	reader                    // a user of the role read
	submitter                 // of the role submit
	admin                     // of the role admin
	worker                    // a node of a cluster
	pooled                    // a free node of the site's pool
	fellow                    // another master
)

// Each role of users may do what the one before may.
const (
	admins     = admin
	submitters = submitter | admins
	readers    = reader | submitters
	nodes      = worker | pooled
	members    = readers | nodes | fellow // everybody with a certificate of the site
	anybody    = stranger | members
)

// access says who may make a call, and whether it changes something: then it is in the audit log when it was made.
// Refused ones always are.
type access struct {
	may     who
	changes bool
}

// procedures is who may call what. What is not in it nobody may; a test holds it against all that the services have.
var procedures = map[string]access{
	// A token or a code is the credential; a node that renews its certificate has one.
	apiconnect.JoinServiceJoinProcedure:  {anybody, true},
	apiconnect.JoinServiceLoginProcedure: {anybody, true},
	apiconnect.JoinServiceReachProcedure: {anybody, false},

	apiconnect.WorkerServiceSessionProcedure:  {nodes, false},
	apiconnect.WorkerServiceMembersProcedure:  {nodes, false},
	apiconnect.MasterServiceAnnounceProcedure: {fellow, false},

	// What reading takes is for all users.
	apiconnect.MillraceServiceGetSiteProcedure:      {readers, false},
	apiconnect.MillraceServiceGetJobProcedure:       {readers, false},
	apiconnect.MillraceServiceExplainJobProcedure:   {readers, false},
	apiconnect.MillraceServiceListJobsProcedure:     {readers, false},
	apiconnect.MillraceServiceWatchJobProcedure:     {readers, false},
	apiconnect.MillraceServiceListTasksProcedure:    {readers, false},
	apiconnect.MillraceServiceJobLogsProcedure:      {readers, false},
	apiconnect.MillraceServiceListNodesProcedure:    {readers, false},
	apiconnect.MillraceServiceGetDrainProcedure:     {readers, false},
	apiconnect.MillraceServiceNodeLogsProcedure:     {readers, false},
	apiconnect.MillraceServiceGetClusterProcedure:   {readers, false},
	apiconnect.MillraceServiceListClustersProcedure: {readers, false},
	apiconnect.MillraceServiceListEventsProcedure:   {readers, false},
	apiconnect.MillraceServiceListBinariesProcedure: {readers, false},
	apiconnect.MillraceServiceRenewLoginProcedure:   {readers, true},

	// Jobs.
	apiconnect.MillraceServiceMissingFilesProcedure: {submitters, false},
	apiconnect.MillraceServiceUploadFileProcedure:   {submitters, true},
	apiconnect.MillraceServiceSubmitJobProcedure:    {submitters, true},
	apiconnect.MillraceServiceCancelJobProcedure:    {submitters, true},

	// Nodes, clusters, users, the site.
	apiconnect.MillraceServiceDrainNodeProcedure:        {admins, true},
	apiconnect.MillraceServiceResumeNodeProcedure:       {admins, true},
	apiconnect.MillraceServiceRemoveNodeProcedure:       {admins, true},
	apiconnect.MillraceServiceExecNodeProcedure:         {admins, true},
	apiconnect.MillraceServiceCreateClusterProcedure:    {admins, true},
	apiconnect.MillraceServiceResizeClusterProcedure:    {admins, true},
	apiconnect.MillraceServiceSetClusterProcedure:       {admins, true},
	apiconnect.MillraceServiceTerminateClusterProcedure: {admins, true},
	apiconnect.MillraceServiceCreateJoinTokenProcedure:  {admins, true},
	apiconnect.MillraceServiceListJoinTokensProcedure:   {admins, false},
	apiconnect.MillraceServiceRevokeJoinTokenProcedure:  {admins, true},
	apiconnect.MillraceServiceCreateUserProcedure:       {admins, true},
	apiconnect.MillraceServiceListUsersProcedure:        {admins, false},
	apiconnect.MillraceServiceCreateLoginCodeProcedure:  {admins, true},
	apiconnect.MillraceServiceRemoveUserProcedure:       {admins, true},
	apiconnect.MillraceServiceSetSiteProcedure:          {admins, true},
	apiconnect.MillraceServiceRotateCAProcedure:         {admins, true},
	apiconnect.MillraceServiceAddMasterProcedure:        {admins, true},
	apiconnect.MillraceServiceRemoveMasterProcedure:     {admins, true},
	apiconnect.MillraceServiceBackupProcedure:           {admins, true},

	// Files. A node calls for its attempts, and only about clusters that are theirs to reach (nodeReaches).
	apiconnect.FilesServiceStatFileProcedure:         {readers | worker, false},
	apiconnect.FilesServiceListFolderProcedure:       {readers | worker, false},
	apiconnect.FilesServiceFileUsageProcedure:        {readers, false},
	apiconnect.FilesServiceLocateFileProcedure:       {readers | worker, false},
	apiconnect.FilesServiceReportBadReplicaProcedure: {readers | worker, false},
	apiconnect.FilesServiceCheckFilesProcedure:       {readers, false},
	apiconnect.FilesServiceCreateFileProcedure:       {submitters | worker, true},
	apiconnect.FilesServiceAddBlockProcedure:         {submitters | worker, false},
	apiconnect.FilesServiceRestampBlockProcedure:     {submitters | worker, false},
	apiconnect.FilesServiceCompleteFileProcedure:     {submitters | worker, false},
	apiconnect.FilesServiceAbandonFileProcedure:      {submitters | worker, false},
	apiconnect.FilesServiceRenewLeasesProcedure:      {submitters | worker, false},
	apiconnect.FilesServiceMakeFolderProcedure:       {submitters, true},
	apiconnect.FilesServiceRenameFileProcedure:       {submitters, true},
	apiconnect.FilesServiceRemoveFileProcedure:       {submitters, true},
	apiconnect.FilesServiceSetReplicationProcedure:   {submitters, true},
}

// pages is who may get what else there is on the port, by the path, or by what it begins with where that ends in a slash.
var pages = map[string]access{
	HealthPath:   {members, false},
	NodeLogPath:  {fellow, false},
	BinariesPath: {anybody, false}, // a join token is the credential, as a bearer's
}

// accessTo finds what the table says of a path; false: nothing, so nobody may.
func accessTo(path string) (access, bool) {
	if a, ok := procedures[path]; ok {
		return a, true
	}
	for page, a := range pages {
		if below := strings.HasSuffix(page, "/"); path == page && !below || below && len(path) > len(page) && strings.HasPrefix(path, page) {
			return a, true
		}
	}
	return access{}, false
}
