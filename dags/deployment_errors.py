"""No Dag, but a place for Airflow to show what is wrong with a `deployment.yaml`.

Airflow takes all Dags of a file with an import error out of service. Raised here, where no Dag is, the error of one
deployment leaves the others running.
"""

from scoring_airflow.load import raise_errors

raise_errors()
