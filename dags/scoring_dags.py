"""Every Dag of every deployment: `score_<name>`, `retrain_<name>` and `redeploy_<name>`.

A deployment that is not valid has no Dags here; `deployment_errors.py` shows why.
"""

from airflow.sdk import get_parsing_context

from scoring_airflow.load import dags_of_all

for dag in dags_of_all(wanted=get_parsing_context().dag_id):
    globals()[dag.dag_id] = dag
