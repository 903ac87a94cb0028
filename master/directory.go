package master

import (
	"errors"
	"os"

	"millrace/pkg/nodedir"
)

// directory is the node's own folder, locked while the node runs:
//
//	format.json    which arrangement this is, and who wrote it last
//	node.json      who the node is; written last at the first start
//	seal.key       opens the secrets in the log; never leaves the masters
//	gossip.key
//	pki/           the node's certificate, its key, the site's CA
//	genesis.json   the site to be made; gone once it is in the log
//	audit/         who changed what, and who was refused
//	admin.json     the administrator's context
//	store.sha256   what the last start was told of the site's object store
//	alone          this master begins alone, from a backup or as what is left; gone once the log has it
//	restoring      a restore has begun here; gone once node.json is written
//	peers.json     where other masters were last
//	raft/          log and snapshots; begun: that this master, not the site's first, has a log
//	binaries/      the program for machines of other kinds, linux-ARCH; whoever runs the site puts it there
//	tmp/           files on their way to the store; emptied at each start
type directory struct{ *nodedir.Dir }

// openDirectory makes the folder if need be and locks it.
func openDirectory(root, version string) (*directory, error) {
	d, err := nodedir.Open(root, version, "pki", "raft")
	if err != nil {
		return nil, err
	}
	err = os.RemoveAll(d.Path("tmp"))
	if err == nil {
		err = os.Mkdir(d.Path("tmp"), 0o700)
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return &directory{d}, nil
}
