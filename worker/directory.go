package worker

import "millrace/pkg/nodedir"

// openDirectory locks the node's own folder:
//
//	format.json          which arrangement this is, and who wrote it last
//	node.json            who the node is; written last at the first start
//	pki/                 its key, certificate, the site's CA, the gossip key
//	term                 the highest term of a leader seen
//	segments/JOB/        map output
//	blocks/              a core node's blocks, unless --data-dir names other folders
//	data-dirs.json       the folders that it has ever named
//	data-mounts.json     where their disks were mounted
//	attempts/ATTEMPT/    where attempts run
//	logs/JOB/            standard error of attempts, until it is in the object store
//	programs/            shipped files by SHA-256
//	bootstrap/           how far bootstrap actions are, and what they said
func openDirectory(root, version string) (*nodedir.Dir, error) {
	return nodedir.Open(root, version, "pki")
}
