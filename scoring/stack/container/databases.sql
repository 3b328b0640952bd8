-- Run once by the Postgres image, for an empty volume. The database `airflow` is made by POSTGRES_DB.
CREATE DATABASE mlflow;
