package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/knarr-io/knarr/internal/cluster"
)

// Member is knarr member: the servers of the cluster.
func Member() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{
		Use:   "member",
		Short: "List and remove the servers of the cluster",
		Long: `A cluster with several servers goes on while more than half of them are there: with three, any one may be lost. knarr server --join
adds one; knarr down --delete-data on a server makes it leave; one that is lost for good is removed with knarr member rm, and then no longer
counts.`,
	}
	cmd.PersistentFlags().StringVar(&dataDir, "data-dir", dataDirFromEnv(), "the cluster's data directory")
	var output string
	list := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the servers", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var members cluster.MemberList
			if err := askServers(cmd.Context(), dataDir, http.MethodGet, "", &members); err != nil {
				return err
			}
			return printMembers(cmd.OutOrStdout(), members, output)
		},
	}
	list.Flags().StringVarP(&output, "output", "o", "", "json, or nothing for a table")
	remove := &cobra.Command{
		Use: "rm NAME...", Short: "Remove servers for good, unless too few of the others answer", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range args {
				var gone cluster.Member
				if err := askServers(cmd.Context(), dataDir, http.MethodDelete, "/"+name, &gone); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "removed server %s\n", name)
			}
			return nil
		},
	}
	cmd.AddCommand(list, remove)
	return cmd
}

func printMembers(out io.Writer, members cluster.MemberList, output string) error {
	switch output {
	case "json":
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(members)
	case "":
	default:
		return fmt.Errorf("-o %q: want json", output)
	}
	w := tabwriter.NewWriter(out, 0, 4, 3, ' ', 0)
	fmt.Fprintln(w, "NAME\tID\tADDRESS\tROLE\tANSWERS")
	for _, m := range members.Items {
		role, answers := "votes", "yes"
		switch {
		case m.Leader:
			role = "leads"
		case m.Learner:
			role = "catches up"
		}
		if !m.Answers {
			answers = "no"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", m.Name, m.ID, m.URL, role, answers)
	}
	return w.Flush()
}

// askServers sends a request about the servers of the cluster of dataDir, as its administrator.
func askServers(ctx context.Context, dataDir, method, path string, out any) error {
	kubeconfig := KubeconfigPath(dataDir)
	if k := os.Getenv("KUBECONFIG"); k != "" {
		if _, err := os.Stat(kubeconfig); err != nil {
			kubeconfig = k
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return fmt.Errorf("there is no administrator's kubeconfig at %s: run this on a server, or set KUBECONFIG: %w", kubeconfig, err)
	}
	config.Timeout = 15 * time.Second
	c, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	defer c.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, config.Host+cluster.ServersPath+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return fmt.Errorf("asking the server: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("asking the server: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var status metav1.Status
		if json.Unmarshal(body, &status) == nil && status.Message != "" {
			return errors.New(status.Message)
		}
		return fmt.Errorf("the server answered %s", resp.Status)
	}
	return json.Unmarshal(body, out)
}
